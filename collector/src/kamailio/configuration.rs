//! The words of a Kamailio configuration that name other files and the RPC's sockets.
//!
//! No grammar: comments and quotes are understood, and of the statements only `modparam`,
//! `include_file`, `import_file` (each with or without `#!` or `!!` before it) and the global
//! parameter for the run directory. Which branch of an `#!ifdef` was taken is not asked, since a
//! file or socket too many does no harm. Names that `#!define` gives a text are replaced by it, and
//! inside texts what `#!subst` and its kin replace literally.

use std::collections::{BTreeMap, VecDeque};

/// What a configuration's text says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Statements {
    /// Files to be read in its place, in order.
    pub(crate) includes: Vec<Include>,
    /// Parameters of modules, in order.
    pub(crate) parameters: Vec<Parameter>,
    /// The run directory, if one is set.
    pub(crate) run_directory: Option<String>,
}

/// Another file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Include {
    /// Its path, as written.
    pub(crate) path: String,
    /// It may be missing (`import_file`).
    pub(crate) optional: bool,
}

/// A parameter of a module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Parameter {
    /// One of the modules that the statement names.
    pub(crate) module: String,
    /// The parameter.
    pub(crate) name: String,
    /// Its value.
    pub(crate) value: String,
}

/// What `#!define`, `#!subst` and their kin have said so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Definitions {
    names: BTreeMap<String, String>,
    substitutions: Vec<(String, String)>,
}

impl Definitions {
    /// `!from!to!flags`, with any character in the place of `!`; patterns are not understood.
    fn substitute(&mut self, rule: &str, also_name: bool) {
        let Some(mark) = rule.chars().next() else { return };
        let mut parts = rule.split(mark).skip(1).map(str::to_owned);
        let (Some(from), Some(to)) = (parts.next(), parts.next()) else { return };
        let literal = |character: char| character.is_alphanumeric() || "_-".contains(character);
        if from.is_empty() || !from.chars().all(literal) {
            return;
        }
        if also_name {
            self.names.insert(from.clone(), to.clone());
        }
        self.substitutions.push((from, to));
    }

    /// A text as Kamailio reads it. It may grow only so far: rules can feed one another.
    fn applied(&self, text: &str) -> String {
        const LONGEST: usize = 64 << 10;
        let mut text = text.to_owned();
        for (from, to) in self.substitutions.iter().take(1000) {
            if text.len() < LONGEST && to.len() < LONGEST && text.contains(from.as_str()) {
                text = text.replacen(from.as_str(), to, 10);
            }
        }
        text
    }
}

impl Statements {
    /// Reads a text; `defines` holds what `#!define` said in the files before, and is added to.
    pub(crate) fn read(text: &str, defines: &mut Definitions) -> Self {
        let mut words = Words { rest: text, at_line_start: true };
        let mut statements = Self::default();
        // A statement and what is looked at behind it.
        let mut window: VecDeque<Word> = words.by_ref().take(8).collect();
        while let Some(word) = window.pop_front() {
            statements.add(&word, window.make_contiguous(), defines);
            window.extend(words.next());
        }
        statements
    }

    fn add(&mut self, word: &Word, following: &[Word], defines: &mut Definitions) {
        let Word::Bare(word) = word else { return };
        match word.as_str() {
            "include_file" | "import_file" => {
                if let Some(path) = following.first().and_then(|path| path.value(defines)) {
                    self.includes.push(Include { path, optional: word == "import_file" });
                }
            }
            "define" | "trydef" | "redefine" => {
                if let [Word::Bare(name), Word::Text(value), ..] = following {
                    defines.names.insert(name.clone(), value.clone());
                }
            }
            "subst" | "substdef" | "substdefs" => {
                if let [Word::Text(rule), ..] = following {
                    defines.substitute(rule, word != "subst");
                }
            }
            "modparam" | "modparamx" => self.add_parameter(following, defines),
            "run_dir" | "runtime_dir" => {
                if let [Word::Sign('='), value, ..] = following {
                    self.run_directory = value.value(defines);
                }
            }
            _ => {}
        }
    }

    /// `( "module|module", "name", value )`
    fn add_parameter(&mut self, words: &[Word], defines: &Definitions) {
        let [Word::Sign('('), modules, Word::Sign(','), name, Word::Sign(','), value, ..] = words
        else {
            return;
        };
        let texts = [modules, name, value].map(|word| word.value(defines));
        let [Some(modules), Some(name), Some(value)] = texts else { return };
        for module in modules.split('|') {
            let module = module.trim_end_matches(".so").to_owned();
            self.parameters.push(Parameter { module, name: name.clone(), value: value.clone() });
        }
    }
}

/// A word of the text.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Word {
    /// Outside quotes; of a directive without what is before its name.
    Bare(String),
    /// In quotes.
    Text(String),
    /// One other character.
    Sign(char),
}

impl Word {
    /// A text, or what a name stands for.
    fn value(&self, defines: &Definitions) -> Option<String> {
        match self {
            Self::Text(text) => Some(defines.applied(text)),
            Self::Bare(name) => Some(defines.names.get(name).unwrap_or(name).clone()),
            Self::Sign(_) => None,
        }
    }
}

struct Words<'a> {
    rest: &'a str,
    at_line_start: bool,
}

impl Words<'_> {
    fn skip(&mut self, length: usize) {
        self.rest = self.rest.get(length..).unwrap_or_default();
    }

    fn skip_line(&mut self) {
        self.skip(self.rest.find('\n').unwrap_or(self.rest.len()));
    }

    fn quoted(&mut self, quote: char) -> Word {
        self.skip(1);
        let mut text = String::new();
        let mut characters = self.rest.char_indices();
        let mut end = self.rest.len();
        while let Some((at, character)) = characters.next() {
            match character {
                '\\' => text.extend(characters.next().map(|(_, escaped)| escaped)),
                _ if character == quote => {
                    end = at.saturating_add(1);
                    break;
                }
                _ => text.push(character),
            }
        }
        self.skip(end);
        Word::Text(text)
    }

    fn bare(&mut self) -> Word {
        let end = self.rest.find(|character: char| !is_bare(character));
        let end = end.unwrap_or(self.rest.len());
        let word = self.rest.get(..end).unwrap_or_default().to_owned();
        self.skip(end);
        Word::Bare(word)
    }
}

impl Iterator for Words<'_> {
    type Item = Word;

    fn next(&mut self) -> Option<Word> {
        loop {
            let first = self.rest.chars().next()?;
            let at_line_start = std::mem::replace(&mut self.at_line_start, first == '\n');
            if self.rest.starts_with("/*") {
                let end = self.rest.find("*/").map(|at| at.saturating_add(2));
                self.skip(end.unwrap_or(self.rest.len()));
            } else if at_line_start && ["#!", "!!"].iter().any(|mark| self.rest.starts_with(mark)) {
                self.skip(2);
            } else if first == '#' || self.rest.starts_with("//") {
                self.skip_line();
            } else if first == '"' || first == '\'' {
                return Some(self.quoted(first));
            } else if is_bare(first) {
                return Some(self.bare());
            } else {
                self.skip(first.len_utf8());
                if !first.is_whitespace() {
                    return Some(Word::Sign(first));
                }
                self.at_line_start |= at_line_start;
            }
        }
    }
}

fn is_bare(character: char) -> bool {
    character.is_alphanumeric() || "_.:-|".contains(character)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Statements {
        Statements::read(text, &mut Definitions::default())
    }

    fn values(text: &str) -> Vec<String> {
        read(text).parameters.into_iter().map(|one| one.value).collect()
    }

    #[test]
    fn parameters_are_found_and_comments_are_not() {
        let text = r#"
            # modparam("ctl", "binrpc", "in a comment")
            // modparam("ctl", "binrpc", "in another one")
            /* modparam("ctl", "binrpc",
               "in a longer one") */
            loadmodule "ctl.so"
            modparam("ctl", "binrpc", "unix:/run/a")   # the first
            modparam( 'ctl' ,
                "binrpc", 'tcp:127.0.0.1:2046' )
            modparam("ctl|jsonrpcs.so", "mode", 0600)
            xlog("modparam(\"ctl\", \"binrpc\", \"in a text\")");
            url = "http://host/#fragment" modparam("ctl", "binrpc", "behind a text")
        "#;
        assert_eq!(
            values(text),
            ["unix:/run/a", "tcp:127.0.0.1:2046", "0600", "0600", "behind a text"]
        );
        let modules = read(text).parameters.into_iter().map(|one| one.module).collect::<Vec<_>>();
        assert_eq!(modules, ["ctl", "ctl", "ctl", "jsonrpcs", "ctl"]);
    }

    #[test]
    fn includes_have_four_forms() {
        let text = "include_file \"a.cfg\"\n#!include_file 'b.cfg'\n!!import_file \"c.cfg\"\n\
                    import_file \"d.cfg\"\n# include_file \"e.cfg\"\n  #!import_file \"f.cfg\"";
        let includes = read(text).includes;
        let found: Vec<(&str, bool)> =
            includes.iter().map(|one| (one.path.as_str(), one.optional)).collect();
        assert_eq!(
            found,
            [("a.cfg", false), ("b.cfg", false), ("c.cfg", true), ("d.cfg", true), ("f.cfg", true)]
        );
    }

    #[test]
    fn defined_names_are_replaced() {
        let text = "#!define FIFO \"/run/k/rpc.fifo\"\n#!ifdef WITH_X\nrun_dir=\"/run/k\"\n#!endif\n\
                    modparam(\"jsonrpcs\", \"fifo_name\", FIFO)\nmodparam(\"a\", \"b\", UNKNOWN)";
        assert_eq!(values(text), ["/run/k/rpc.fifo", "UNKNOWN"]);
        assert_eq!(read(text).run_directory.as_deref(), Some("/run/k"));
    }

    #[test]
    fn substitutions_reach_into_texts() {
        let text = "#!substdef \"!RUN!/run/k!g\"\n#!subst \"/HOST/10.0.0.1/\"\n#!subst '!a.*b!c!'\n\
                    modparam(\"ctl\", \"binrpc\", \"unix:RUN/ctl\")\n\
                    modparam(\"ctl\", \"binrpc\", \"tcp:HOST:2046\")\nmodparam(\"a\", \"b\", RUN)";
        assert_eq!(values(text), ["unix:/run/k/ctl", "tcp:10.0.0.1:2046", "/run/k"]);
        let feeding = "#!subst \"!a!aaaaaaaaaa!\"\n".repeat(2000) + "modparam(\"x\", \"y\", \"a\")";
        assert!(values(&feeding).concat().len() < 1 << 20);
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in "(modparam|include_file|[\\(\\),\"'\\\\#!/*=\n a-zé])*") {
            read(&text);
        }
    }
}
