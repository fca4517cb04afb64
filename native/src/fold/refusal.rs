//! Why an event is not folded. `Refusal` of `streams/fold/rejections.py` has the words.

/// Its name, and its source.
pub type App<'a> = (&'a str, &'a str);

/// Nothing was changed; the record belongs in the dead-letter topic.
#[derive(Clone, Copy)]
pub enum Refusal<'a> {
    ImpossibleId,
    ImpossibleMoment { field: &'static str, at: i64 },
    MisplacedKey,
    UnknownAction,
    AnotherCorp { ours: &'a str, theirs: &'a str },
    AnotherApp { ours: App<'a>, theirs: App<'a> },
    TooLarge,
}

impl Refusal<'_> {
    /// Its place among those of Python, and what the words are about.
    pub fn code(&self) -> (usize, Vec<String>) {
        match self {
            Self::ImpossibleId => (0, vec![]),
            Self::ImpossibleMoment { field, at } => (1, vec![(*field).into(), at.to_string()]),
            Self::MisplacedKey => (2, vec![]),
            Self::UnknownAction => (3, vec![]),
            Self::AnotherCorp { ours, theirs } => (4, vec![(*ours).into(), (*theirs).into()]),
            Self::AnotherApp { ours, theirs } => {
                (5, [ours, theirs].map(|(app_type, source)| format!("{source}/{app_type}")).into())
            }
            Self::TooLarge => (6, vec![]),
        }
    }
}
