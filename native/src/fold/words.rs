//! The fixed sets of words, each in the order of its Avro enum. Mirrors the enums of `schemas/events.py`.

/// An enum whose members stand in the order of the schema's symbols.
macro_rules! words {
    ($(#[$about:meta])* $name:ident { $($member:ident),+ $(,)? }) => {
        $(#[$about])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $name { $($member),+ }

        impl $name {
            pub const ALL: &[Self] = &[$(Self::$member),+];

            /// Its place among the schema's symbols.
            pub const fn number(self) -> usize {
                self as usize
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self::ALL[0]
            }
        }
    };
}

words!(
    /// What happened. `Unknown` stands for an action of a newer schema.
    Action { Created, Completed, Cancelled, Deleted, Copied, Unknown }
);

words!(Lifecycle { Active, Deleted, Unknown });

words!(
    /// The state of a task; `Active` is an instance's before it has any task.
    Status { Pending, Completed, Cancelled, Active, Unknown }
);

words!(
    /// The four lists of a task center.
    View { Created, Pending, Handled, Copied }
);

words!(Change { Added, Updated, Removed });

impl View {
    pub const fn text(self) -> &'static str {
        ["CREATED", "PENDING", "HANDLED", "COPIED"][self.number()]
    }
}

impl Change {
    pub const fn text(self) -> &'static str {
        ["ADDED", "UPDATED", "REMOVED"][self.number()]
    }
}
