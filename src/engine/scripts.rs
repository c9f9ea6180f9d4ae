//! The scripts that run in Redis, each whole or not at all.

use super::link::order::Script;

/// Makes the scripts. Some begin with what several need.
macro_rules! scripts {
    ($( $constant:ident = $name:literal $(+ $with:literal)*; )*) => {
        $( pub(super) static $constant: Script = Script {
            name: $name,
            text: concat!(
                $( include_str!(concat!("scripts/", $with, ".lua")), )*
                include_str!(concat!("scripts/", $name, ".lua")),
            ),
        }; )*

        /// All of them.
        pub(crate) static ALL: &[&Script] = &[ $( &$constant ),* ];
    };
}

scripts! {
    OPEN = "open" + "time" + "room";
    PUBLISH = "publish" + "time" + "sender" + "room";
    PRESENCE = "presence" + "version";
    SAVE = "save" + "time" + "version" + "leave";
    TAKE = "take" + "time";
    FENCE = "fence" + "time";
    END = "end" + "time" + "version" + "leave";
    RETURN = "return" + "time";
    DIRECT = "direct" + "time" + "sender";
    BEAT = "beat" + "time";
    ORPHAN = "orphan" + "time";
    REAP = "reap" + "time" + "version" + "leave";
}
