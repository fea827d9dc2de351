//! The file format of speedscope (<https://www.speedscope.app/file-format-schema.json>): one sampled
//! profile for each thread, over one table of frames.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Profile, ProfileFrame};

#[derive(Debug, Serialize)]
struct File<'a> {
    #[serde(rename = "$schema")]
    schema: &'static str,
    name: &'a str,
    exporter: String,
    #[serde(rename = "activeProfileIndex")]
    active: usize,
    shared: Shared<'a>,
    profiles: Vec<Sampled>,
}

#[derive(Debug, Serialize)]
struct Shared<'a> {
    frames: Vec<Frame<'a>>,
}

#[derive(Debug, Serialize)]
struct Frame<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u32>,
}

#[derive(Debug, Serialize)]
struct Sampled {
    #[serde(rename = "type")]
    kind: &'static str,
    name: String,
    unit: &'static str,
    #[serde(rename = "startValue")]
    start: u64,
    #[serde(rename = "endValue")]
    end: u64,
    samples: Vec<Vec<usize>>,
    weights: Vec<u64>,
}

impl Profile {
    /// The profile as JSON.
    ///
    /// # Errors
    /// Those of `serde_json`, which this structure gives no cause for.
    pub fn speedscope(&self) -> serde_json::Result<String> {
        let mut indexes: BTreeMap<&ProfileFrame, usize> = BTreeMap::new();
        let mut frames = Vec::new();
        let mut threads: BTreeMap<(&str, &str), Sampled> = BTreeMap::new();
        for sample in &self.samples {
            let index = |frame| {
                *indexes.entry(frame).or_insert_with(|| {
                    frames.push(Frame::of(frame));
                    frames.len().saturating_sub(1)
                })
            };
            let stack = sample.frames.iter().map(index).collect();
            let key = (sample.process.as_str(), sample.thread.as_str());
            let thread = threads.entry(key).or_insert_with(|| Sampled::new(key));
            thread.samples.push(stack);
            thread.weights.push(sample.weight);
            thread.end = thread.end.saturating_add(sample.weight);
        }
        serde_json::to_string(&File {
            schema: "https://www.speedscope.app/file-format-schema.json",
            name: &self.name,
            exporter: format!("forensics {}", env!("CARGO_PKG_VERSION")),
            active: 0,
            shared: Shared { frames },
            profiles: threads.into_values().collect(),
        })
    }
}

impl<'a> Frame<'a> {
    fn of(frame: &'a ProfileFrame) -> Self {
        Self { name: &frame.function, file: frame.file.as_deref(), line: frame.line }
    }
}

impl Sampled {
    fn new((process, thread): (&str, &str)) -> Self {
        Self {
            kind: "sampled",
            name: format!("{process}, thread {thread}"),
            unit: "none",
            start: 0,
            end: 0,
            samples: Vec::new(),
            weights: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::tests::profile;

    #[test]
    fn each_thread_is_a_sampled_profile_over_shared_frames() {
        let file: Value = serde_json::from_str(&profile().speedscope().unwrap()).unwrap();
        assert_eq!(
            file,
            json!({
                "$schema": "https://www.speedscope.app/file-format-schema.json",
                "name": "kamailio on proxy1",
                "exporter": concat!("forensics ", env!("CARGO_PKG_VERSION")),
                "activeProfileIndex": 0,
                "shared": {"frames": [
                    {"name": "main"}, {"name": "loop"}, {"name": "spin"}, {"name": "recvfrom"}
                ]},
                "profiles": [
                    {
                        "type": "sampled", "name": "11 udp receiver, thread 11 kamailio",
                        "unit": "none", "startValue": 0, "endValue": 3,
                        "samples": [[0, 1, 2], [0, 1, 2, 2], [0, 1, 2]], "weights": [1, 1, 1]
                    },
                    {
                        "type": "sampled", "name": "12 udp receiver, thread 12 kamailio",
                        "unit": "none", "startValue": 0, "endValue": 2,
                        "samples": [[0, 3], [0, 3]], "weights": [1, 1]
                    }
                ]
            })
        );
    }

    #[test]
    fn a_frame_with_its_line_is_another_than_one_without() {
        let mut profile = profile();
        profile.samples[0].frames[2].file = Some("spin.c".into());
        profile.samples[0].frames[2].line = Some(7);
        let file: Value = serde_json::from_str(&profile.speedscope().unwrap()).unwrap();
        let frame = json!({"name": "spin", "file": "spin.c", "line": 7});
        assert_eq!(file["shared"]["frames"][2], frame);
        assert_eq!(file["shared"]["frames"][4], json!({"name": "spin"}));
        assert_eq!(file["profiles"][0]["samples"][0], json!([0, 1, 2]));
        assert_eq!(file["profiles"][0]["samples"][1], json!([0, 1, 4, 4]));
    }
}
