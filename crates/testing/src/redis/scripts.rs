//! Scripts, in Lua 5.1 as in a Redis, with `redis.call` and the like.

use std::{cell::RefCell, collections::BTreeMap, rc::Rc};

use bytes::Bytes;
use mlua::{Function, Lua, MultiValue, Table, Value};

use super::{
    commands::{self, Reply},
    state::State,
};

/// The scripts that were run, and what runs them.
pub(super) struct Scripts {
    lua: Lua,
    compiled: BTreeMap<&'static str, Function>,
}

impl Scripts {
    pub(super) fn new(state: Rc<RefCell<State>>) -> Scripts {
        let lua = Lua::new();
        let redis = library(&lua, &state).expect("Lua has memory");
        lua.globals().set("redis", redis).expect("Lua has memory");
        Scripts { lua, compiled: BTreeMap::new() }
    }

    pub(super) fn run(&mut self, text: &'static str, keys: &[Bytes], args: &[Bytes]) -> Reply {
        let lua = &self.lua;
        let function = match self.compiled.get(text) {
            Some(function) => function.clone(),
            None => match lua.load(text).into_function() {
                Ok(function) => {
                    self.compiled.insert(text, function.clone());
                    function
                }
                Err(error) => return Reply::Error(format!("ERR {error}")),
            },
        };
        let called = (|| {
            for (name, values) in [("KEYS", keys), ("ARGV", args)] {
                let table = lua.create_table()?;
                for value in values {
                    table.push(lua.create_string(value)?)?;
                }
                lua.globals().set(name, table)?;
            }
            function.call::<Value>(())
        })();
        match called.and_then(reply_of) {
            Ok(reply) => reply,
            Err(error) => Reply::Error(text_of(&error)),
        }
    }
}

/// What a command said that stopped the script, or what is wrong with the script.
fn text_of(error: &mlua::Error) -> String {
    match error {
        mlua::Error::CallbackError { cause, .. } => text_of(cause),
        mlua::Error::ExternalError(error) => error.to_string(),
        error => format!("ERR {error}"),
    }
}

fn library(lua: &Lua, state: &Rc<RefCell<State>>) -> mlua::Result<Table> {
    let redis = lua.create_table()?;
    for (name, is_protected) in [("call", false), ("pcall", true)] {
        let state = Rc::clone(state);
        let call = move |lua: &Lua, args: MultiValue| {
            let args = args.iter().map(bytes_of).collect::<mlua::Result<Vec<Bytes>>>()?;
            match commands::run(&mut state.borrow_mut(), &args, true) {
                Reply::Error(text) if !is_protected => Err(mlua::Error::external(text)),
                reply => value_of(lua, reply),
            }
        };
        redis.set(name, lua.create_function(call)?)?;
    }
    let error = |lua: &Lua, text: String| value_of(lua, Reply::Error(text));
    redis.set("error_reply", lua.create_function(error)?)?;
    Ok(redis)
}

fn bytes_of(value: &Value) -> mlua::Result<Bytes> {
    match value {
        Value::String(text) => Ok(Bytes::copy_from_slice(&text.as_bytes())),
        Value::Integer(number) => Ok(number.to_string().into()),
        // As a Redis writes it.
        Value::Number(number) if number.fract() == 0.0 && number.abs() < 1e17 => {
            Ok(format!("{number:.0}").into())
        }
        Value::Number(number) => Ok(number.to_string().into()),
        _ => Err(mlua::Error::external(
            "ERR Lua redis lib command arguments must be strings or integers",
        )),
    }
}

fn value_of(lua: &Lua, reply: Reply) -> mlua::Result<Value> {
    let of_text = |name: &str, text: &str| {
        let table = lua.create_table()?;
        table.set(name, text)?;
        Ok(Value::Table(table))
    };
    Ok(match reply {
        // There is no nil in its lists.
        Reply::Nil => Value::Boolean(false),
        Reply::Int(number) => Value::Number(number as f64),
        Reply::Bytes(bytes) => Value::String(lua.create_string(&bytes)?),
        Reply::Status(text) => return of_text("ok", text),
        Reply::Error(text) => return of_text("err", &text),
        Reply::List(items) => {
            let table = lua.create_table()?;
            for item in items {
                table.push(value_of(lua, item)?)?;
            }
            Value::Table(table)
        }
    })
}

fn reply_of(value: Value) -> mlua::Result<Reply> {
    Ok(match value {
        Value::Boolean(true) => Reply::Int(1),
        // Without its fraction.
        Value::Number(number) => Reply::Int(number as i64),
        Value::Integer(number) => Reply::Int(number),
        Value::String(text) => Reply::Bytes(Bytes::copy_from_slice(&text.as_bytes())),
        Value::Table(table) => {
            if let Some(text) = table.raw_get::<Option<String>>("err")? {
                return Ok(Reply::Error(text));
            }
            let mut items = Vec::new();
            // Up to the first nil.
            for at in 1.. {
                match table.raw_get::<Value>(at)? {
                    Value::Nil => break,
                    value => items.push(reply_of(value)?),
                }
            }
            Reply::List(items)
        }
        _ => Reply::Nil,
    })
}
