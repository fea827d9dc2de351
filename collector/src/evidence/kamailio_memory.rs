//! Kamailio's process table, the use of its pools and the lock of its shared memory, at a glance.
//!
//! Members: `kamailio/memory.json`. What it sees decides what may be asked over RPC.

use bundle::Phase;
use serde_json::json;

use super::{Context, Drawer, Source};
use crate::board::ShmLock;
use crate::kamailio::memory::{Look, Usage};

#[derive(Debug)]
pub(crate) struct KamailioMemory;

impl Source for KamailioMemory {
    fn name(&self) -> &'static str {
        "kamailio-memory"
    }

    fn about(&self) -> &'static str {
        "its process table, the use of its pools, the lock of its shared memory"
    }

    fn phase(&self) -> Phase {
        Phase::AfterThaw
    }

    fn collect(&self, context: &Context, out: &Drawer) -> anyhow::Result<()> {
        let look = Look::at(&context.target);
        let lock = look.shm_lock(&context.target);
        if look.shared.is_none() {
            out.gap("use of the pools at a glance", "its variables are not as in 5.2 to 6.1");
        }
        let text = serde_json::to_vec_pretty(&described(&look, lock))?;
        context.board.note_kamailio(look, lock);
        out.put("kamailio/memory.json".to_owned(), None, text);
        Ok(())
    }
}

fn described(look: &Look, lock: ShmLock) -> serde_json::Value {
    let usage = |usage: Usage| json!({ "size": usage.size, "real_used": usage.used });
    let processes = look.roles.iter().map(|(pid, role)| {
        let private = look.private.get(pid).copied().map(usage);
        json!({ "pid": pid, "rank": role.rank, "role": role.description, "pkg": private })
    });
    json!({
        "processes": processes.collect::<Vec<_>>(),
        "shm": look.shared.map(usage),
        "shm_lock": {
            "address": look.lock.map(|at| format!("0x{at:x}")),
            "state": match lock {
                ShmLock::Free => "free",
                ShmLock::Held => "held",
                ShmLock::Unknown => "unknown",
            },
        },
    })
}
