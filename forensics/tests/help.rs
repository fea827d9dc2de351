//! What `--help` says, word by word. To accept a change: `UPDATE_HELP=1 cargo test -p forensics`.

use std::path::Path;

use clap::CommandFactory as _;

#[test]
fn the_help_is_what_was_agreed() {
    let mut command = forensics::cli::Cli::command().term_width(100);
    let mut text = command.render_long_help().to_string();
    let names: Vec<String> =
        command.get_subcommands().map(|command| command.get_name().to_owned()).collect();
    for name in names {
        let sub = command.find_subcommand_mut(&name).unwrap().clone().term_width(100);
        text.push_str(&format!("\n## {name}\n\n{}", sub.clone().render_long_help()));
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/help.txt");
    if std::env::var_os("UPDATE_HELP").is_some() {
        std::fs::write(&file, &text).unwrap();
    }
    let agreed = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(text == agreed, "--help changed; now it is:\n{text}");
}
