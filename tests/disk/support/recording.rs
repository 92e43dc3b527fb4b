//! A recording of what a process asked of a file system, and what a power loss at any moment of it
//! leaves on the medium.
//!
//! The recording is strace's. It is replayed into a model of a file system that keeps as little as
//! it may: of a file, what was in it when a successful sync of it began; of a folder, the names
//! that were in it then. What a failed sync was to save is never saved by a later one, as the
//! kernel takes it for clean.
//!
//! What this cannot show: a medium that says synced and is not, a sector that is torn, and what the
//! code of a real file system makes of the same calls.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::{Component, Path};

/// The calls that change files and names, and those that are needed to know which.
pub(crate) const CALLS: &str = "/^(open|openat|openat2|creat|close|dup.*|fcntl|lseek|write.*|pwrite.*|\
    ftruncate|truncate|fallocate|rename.*|link|linkat|symlink.*|unlink.*|mkdir.*|rmdir|fsync|\
    fdatasync|sync.*|copy_file_range|sendfile|splice)$";

/// A line of the recording: a call that has returned, from when to when.
#[derive(Debug)]
pub(crate) struct Call {
    begin: usize,
    end: usize,
    name: String,
    arguments: Vec<Argument>,
    returned: i64,
}

#[derive(Debug, PartialEq)]
enum Argument {
    Text(Vec<u8>),
    Word(String),
}

impl Call {
    fn word(&self, index: usize) -> &str {
        match &self.arguments[index] {
            Argument::Word(word) => word,
            Argument::Text(_) => panic!("{self:?}"),
        }
    }

    fn number(&self, index: usize) -> i64 {
        self.word(index).parse().unwrap()
    }

    fn text(&self, index: usize) -> &[u8] {
        match &self.arguments[index] {
            Argument::Text(text) => text,
            Argument::Word(_) => panic!("{self:?}"),
        }
    }

    fn path(&self, index: usize) -> &Path {
        Path::new(std::str::from_utf8(self.text(index)).unwrap())
    }
}

/// Reads the log of `strace -f -xx`.
pub(crate) fn read(log: &str) -> Vec<Call> {
    let mut unfinished = HashMap::<&str, (usize, String)>::new();
    let mut calls = Vec::new();
    for (number, line) in log.lines().enumerate() {
        let (thread, rest) = line.split_once(' ').unwrap();
        let rest = rest.trim_start();
        if let Some(start) = rest.strip_suffix(" <unfinished ...>") {
            unfinished.insert(thread, (number, start.to_owned()));
        } else if rest.starts_with("<... ") {
            let (_, tail) = rest.split_once(" resumed>").unwrap();
            let (begin, start) = unfinished.remove(thread).unwrap();
            calls.extend(parse(&(start + tail), begin, number));
        } else {
            calls.extend(parse(rest, number, number));
        }
    }
    calls
}

/// `None` for what is no call that has returned: a signal, an end.
fn parse(line: &str, begin: usize, end: usize) -> Option<Call> {
    let (name, rest) = line.split_once('(')?;
    let (inside, returned) = rest.rsplit_once(" = ")?;
    let inside = inside.trim_end().strip_suffix(')')?;
    let returned = returned.split(' ').next()?.parse().ok()?;
    let mut arguments = Vec::new();
    for argument in inside.split(", ") {
        // The parts of a vectored write stand one after the other.
        let argument = argument.trim_start_matches(['[', '{']);
        let argument = argument.strip_prefix("iov_base=").unwrap_or(argument);
        arguments.push(match argument.strip_prefix('"') {
            // In hexadecimal throughout, so that nothing in it looks like an end of it.
            Some(text) => Argument::Text(bytes(text.strip_suffix('"').expect("a whole text"))),
            None => Argument::Word(argument.to_owned()),
        });
    }
    Some(Call {
        begin,
        end,
        name: name.to_owned(),
        arguments,
        returned,
    })
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits = hex.split("\\x").skip(1);
    digits
        .map(|digits| u8::from_str_radix(digits, 16).unwrap())
        .collect()
}

/// What happens to the model, in order.
#[derive(Debug)]
pub(crate) enum Step {
    /// A call takes effect.
    Effect(usize),
    /// A sync of the call begins.
    SyncBegins(usize),
    /// The process says something.
    Says(String),
}

/// The order of what happened. A call takes effect when it returns; a sync covers what was there
/// when it was called; and what is said counts from the first moment on.
///
/// The recorder sees a return later than the kernel makes it, so that another thread's call may
/// have built on the effect already: opened a file in the new folder, or under the number that has
/// just been closed. Making a folder and closing therefore take effect at once.
pub(crate) fn steps(calls: &[Call]) -> Vec<Step> {
    let mut steps = Vec::new();
    for (index, call) in calls.iter().enumerate() {
        match call.name.as_str() {
            "write" if call.number(0) == 1 => {
                let said = String::from_utf8_lossy(call.text(1)).into_owned();
                steps.push((call.begin, 0, Step::Says(said)));
            }
            "fsync" | "fdatasync" => {
                steps.push((call.begin, 1, Step::SyncBegins(index)));
                steps.push((call.end, 2, Step::Effect(index)));
            }
            "close" | "mkdir" | "mkdirat" => steps.push((call.begin, 0, Step::Effect(index))),
            _ => steps.push((call.end, 2, Step::Effect(index))),
        }
    }
    steps.sort_by_key(|(line, order, _)| (*line, *order));
    steps.into_iter().map(|(_, _, step)| step).collect()
}

type Id = usize;
type Names = BTreeMap<String, Id>;

#[derive(Debug, Clone)]
enum Node {
    File {
        live: Vec<u8>,
        durable: Vec<u8>,
        /// A sync of it has failed: nothing more of it is saved.
        doomed: bool,
    },
    Folder {
        live: Names,
        durable: Names,
        /// What names stood for when a sync failed: as long as they do, they are not saved.
        doomed: BTreeSet<(String, Option<Id>)>,
    },
}

/// What a file or folder looked like when its sync began.
#[derive(Debug, Clone)]
enum Snapshot {
    Data(Vec<u8>),
    Names(Names),
}

/// A file system below one folder, as it looks and as it would after a power loss.
#[derive(Debug)]
pub(crate) struct Model {
    root: String,
    nodes: Vec<Node>,
    files: HashMap<i64, (Id, usize)>,
    syncs: HashMap<usize, (Id, Snapshot)>,
}

/// What of the unsynced a power loss leaves.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Loss {
    Everything,
    /// Names are there, and point to files whose data is not.
    Data,
    Names,
    Nothing,
    /// Of each name and each file, this or that.
    Some(u64),
}

impl Model {
    /// Of what is below this folder, which is empty and durable.
    pub(crate) fn new(root: &Path) -> Self {
        Self {
            root: root.to_str().unwrap().to_owned(),
            nodes: vec![Node::folder()],
            files: HashMap::new(),
            syncs: HashMap::new(),
        }
    }

    /// Whether the step can have changed what a power loss leaves.
    pub(crate) fn apply(&mut self, calls: &[Call], step: &Step) -> bool {
        match step {
            Step::Says(_) => false,
            Step::SyncBegins(index) => {
                if let Some((id, _)) = self.files.get(&calls[*index].number(0)) {
                    let snapshot = match &self.nodes[*id] {
                        Node::File { live, .. } => Snapshot::Data(live.clone()),
                        Node::Folder { live, .. } => Snapshot::Names(live.clone()),
                    };
                    self.syncs.insert(*index, (*id, snapshot));
                }
                false
            }
            Step::Effect(index) => self.effect(*index, &calls[*index]),
        }
    }

    fn effect(&mut self, index: usize, call: &Call) -> bool {
        let failed = call.returned < 0;
        match call.name.as_str() {
            "fsync" | "fdatasync" => match self.syncs.remove(&index) {
                Some((id, snapshot)) => self.sync(id, snapshot, failed),
                None => false,
            },
            _ if failed => false,
            "openat" => self.open(call.path(1), call.word(2), call.returned),
            "open" => self.open(call.path(0), call.word(1), call.returned),
            "close" => {
                self.files.remove(&call.number(0));
                false
            }
            "lseek" => {
                if let Some((_, at)) = self.files.get_mut(&call.number(0)) {
                    *at = usize::try_from(call.returned).unwrap();
                }
                false
            }
            "fcntl" if call.word(1).starts_with("F_DUPFD") => self.duplicate(call),
            "fcntl" => false,
            "dup" | "dup2" | "dup3" => self.duplicate(call),
            "write" | "writev" => self.write(call),
            "ftruncate" => match self.files.get(&call.number(0)) {
                Some(&(id, _)) => {
                    let len = usize::try_from(call.number(1)).unwrap();
                    self.data(id).resize(len, 0);
                    true
                }
                None => false,
            },
            "mkdir" => self.create_folder(call.path(0)),
            "mkdirat" => self.create_folder(call.path(1)),
            "rename" => self.rename(call.path(0), call.path(1)),
            "renameat" | "renameat2" => self.rename(call.path(1), call.path(3)),
            "unlink" | "rmdir" => self.unlink(call.path(0)),
            "unlinkat" => self.unlink(call.path(1)),
            other => {
                // Whatever else is called below the folder, this model knows nothing of.
                let ours = |argument: &Argument| match argument {
                    Argument::Text(text) => text.starts_with(self.root.as_bytes()),
                    Argument::Word(word) => word
                        .parse()
                        .is_ok_and(|file| self.files.contains_key(&file)),
                };
                assert!(!call.arguments.iter().any(ours), "{other}: {call:?}");
                false
            }
        }
    }

    fn open(&mut self, path: &Path, flags: &str, file: i64) -> bool {
        // A number that was closed elsewhere, as in a child that is forked.
        self.files.remove(&file);
        let has = |flag| flags.split('|').any(|has| has == flag);
        assert!(!has("O_APPEND") && !has("O_TMPFILE"), "{flags}");
        if path == Path::new(&self.root) {
            self.files.insert(file, (0, 0));
            return false;
        }
        let Some((parent, name)) = self.locate(path) else {
            return false;
        };
        let known = self.names(parent).get(&name).copied();
        let id = known.unwrap_or_else(|| {
            assert!(has("O_CREAT"), "{path:?} {flags}");
            self.nodes.push(Node::file());
            let id = self.nodes.len() - 1;
            self.names(parent).insert(name, id);
            id
        });
        if has("O_TRUNC") {
            self.data(id).clear();
        }
        self.files.insert(file, (id, 0));
        known.is_none() || has("O_TRUNC")
    }

    fn duplicate(&mut self, call: &Call) -> bool {
        // Two numbers would share one position, which nothing here needs.
        if let Some(&(id, _)) = self.files.get(&call.number(0)) {
            assert!(matches!(self.nodes[id], Node::Folder { .. }), "{call:?}");
            self.files.insert(call.returned, (id, 0));
        }
        false
    }

    fn write(&mut self, call: &Call) -> bool {
        let Some(&(id, at)) = self.files.get(&call.number(0)) else {
            return false;
        };
        let mut written = Vec::new();
        for argument in &call.arguments {
            if let Argument::Text(part) = argument {
                written.extend_from_slice(part);
            }
        }
        written.truncate(usize::try_from(call.returned).unwrap());
        let end = at + written.len();
        let data = self.data(id);
        data.resize(data.len().max(end), 0);
        data[at..end].copy_from_slice(&written);
        self.files.insert(call.number(0), (id, end));
        true
    }

    fn create_folder(&mut self, path: &Path) -> bool {
        if let Some((parent, name)) = self.locate(path) {
            self.nodes.push(Node::folder());
            let id = self.nodes.len() - 1;
            self.names(parent).insert(name, id);
        }
        true
    }

    fn rename(&mut self, from: &Path, to: &Path) -> bool {
        let ((from, old), (to, new)) = match (self.locate(from), self.locate(to)) {
            (None, None) => return false,
            (from, to) => (from.unwrap(), to.unwrap()),
        };
        let id = self.names(from).remove(&old).unwrap();
        self.names(to).insert(new, id);
        true
    }

    fn unlink(&mut self, path: &Path) -> bool {
        if let Some((parent, name)) = self.locate(path) {
            self.names(parent).remove(&name).unwrap();
        }
        true
    }

    fn sync(&mut self, id: Id, snapshot: Snapshot, failed: bool) -> bool {
        match (&mut self.nodes[id], snapshot) {
            (
                Node::File {
                    durable, doomed, ..
                },
                Snapshot::Data(data),
            ) => {
                if failed {
                    *doomed = true;
                } else if !*doomed {
                    *durable = data;
                }
            }
            (
                Node::Folder {
                    durable, doomed, ..
                },
                Snapshot::Names(names),
            ) => {
                let all: BTreeSet<_> = names.keys().chain(durable.keys()).cloned().collect();
                for name in all {
                    let (now, then) = (names.get(&name).copied(), durable.get(&name).copied());
                    let change = (name, now);
                    if now == then || doomed.contains(&change) {
                    } else if failed {
                        doomed.insert(change);
                    } else if let Some(id) = now {
                        durable.insert(change.0, id);
                    } else {
                        durable.remove(&change.0);
                    }
                }
            }
            _ => unreachable!("a node does not change its kind"),
        }
        !failed
    }

    /// The folder and the name of a path; `None` where it is not below the root.
    fn locate(&self, path: &Path) -> Option<(Id, String)> {
        assert!(path.is_absolute(), "relative to what? {path:?}");
        let below = path.strip_prefix(&self.root).ok()?;
        let mut names = below.components().map(|component| match component {
            Component::Normal(name) => name.to_str().unwrap().to_owned(),
            other => panic!("{other:?}"),
        });
        let last = names.next_back()?;
        let mut folder = 0;
        for name in names {
            let Node::Folder { live, .. } = &self.nodes[folder] else {
                panic!("{path:?}");
            };
            folder = live[&name];
        }
        Some((folder, last))
    }

    fn names(&mut self, id: Id) -> &mut Names {
        match &mut self.nodes[id] {
            Node::Folder { live, .. } => live,
            Node::File { .. } => panic!("no folder"),
        }
    }

    fn data(&mut self, id: Id) -> &mut Vec<u8> {
        match &mut self.nodes[id] {
            Node::File { live, .. } => live,
            Node::Folder { .. } => panic!("no file"),
        }
    }

    /// Writes what is left after a power loss into a real folder.
    pub(crate) fn after(&self, loss: Loss, to: &Path) {
        let mut dice = match loss {
            Loss::Some(seed) => seed | 1,
            _ => 0,
        };
        self.write_folder(0, loss, &mut dice, to);
    }

    fn write_folder(&self, id: Id, loss: Loss, dice: &mut u64, to: &Path) {
        let Node::Folder { live, durable, .. } = &self.nodes[id] else {
            panic!("no folder");
        };
        let names: Vec<(&String, Id)> = match loss {
            Loss::Everything | Loss::Names => durable.iter().map(|(n, id)| (n, *id)).collect(),
            Loss::Data | Loss::Nothing => live.iter().map(|(n, id)| (n, *id)).collect(),
            Loss::Some(_) => {
                let all: BTreeSet<_> = live.keys().chain(durable.keys()).collect();
                let chosen = all.into_iter().filter_map(|name| {
                    let of = if roll(dice, 2) == 0 { live } else { durable };
                    Some((name, *of.get(name)?))
                });
                chosen.collect()
            }
        };
        for (name, id) in names {
            let path = to.join(name);
            match &self.nodes[id] {
                Node::Folder { .. } => {
                    fs::create_dir(&path).unwrap();
                    self.write_folder(id, loss, dice, &path);
                }
                Node::File { live, durable, .. } => {
                    let data = match loss {
                        Loss::Everything | Loss::Data => durable.clone(),
                        Loss::Names | Loss::Nothing => live.clone(),
                        Loss::Some(_) => partly(live, durable, dice),
                    };
                    fs::write(&path, data).unwrap();
                }
            }
        }
    }
}

/// What of a file a power loss may leave: all, nothing new, a beginning, or zeros of its length.
fn partly(live: &[u8], durable: &[u8], dice: &mut u64) -> Vec<u8> {
    let mut data = live.to_vec();
    match roll(dice, 4) {
        0 => {}
        1 => return durable.to_vec(),
        // What is durable stays so.
        2 if live.starts_with(durable) => {
            let more = live.len() - durable.len();
            data.truncate(durable.len() + roll(dice, more as u64 + 1) as usize);
        }
        _ if live.starts_with(durable) => data[durable.len()..].fill(0),
        _ => return durable.to_vec(),
    }
    data
}

fn roll(dice: &mut u64, sides: u64) -> u64 {
    *dice ^= *dice << 13;
    *dice ^= *dice >> 7;
    *dice ^= *dice << 17;
    *dice % sides
}

impl Node {
    fn file() -> Self {
        Self::File {
            live: Vec::new(),
            durable: Vec::new(),
            doomed: false,
        }
    }

    fn folder() -> Self {
        Self::Folder {
            live: Names::new(),
            durable: Names::new(),
            doomed: BTreeSet::new(),
        }
    }
}
