//! The commands that the server uses.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
};

use bytes::Bytes;

use super::{
    state::{Refuses, State},
    store::{Fields, Stream, Value},
};

/// What a command answers.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "they are named as in the protocol of Redis")]
pub enum Reply {
    Nil,
    Int(i64),
    Bytes(Bytes),
    Status(&'static str),
    List(Vec<Reply>),
    Error(String),
}

type Hash = BTreeMap<Bytes, Bytes>;
type Set = BTreeSet<Bytes>;
type Sorted = BTreeMap<Bytes, f64>;
type Answer = Result<Reply, String>;

/// Those that change something, and whether they may need space.
const WRITES: [(&str, bool); 15] = [
    ("DEL", false),
    ("HDEL", false),
    ("HINCRBY", true),
    ("HSET", true),
    ("HSETNX", true),
    ("PEXPIRE", false),
    ("SADD", true),
    ("SET", true),
    ("SPOP", false),
    ("SREM", false),
    ("XADD", true),
    ("XTRIM", false),
    ("ZADD", true),
    ("ZREM", false),
    ("FLUSHALL", false),
];

/// Runs one; `in_script` if a script calls it.
pub(super) fn run(state: &mut State, args: &[Bytes], in_script: bool) -> Reply {
    let Some(name) = args.first().and_then(|name| std::str::from_utf8(name).ok()) else {
        return Reply::Error("ERR no command".to_owned());
    };
    let name = name.to_ascii_uppercase();
    if let Some((_, needs_space)) = WRITES.iter().find(|(write, _)| *write == name) {
        if state.refuses == Refuses::Writes {
            let text = "READONLY You can't write against a read only replica.";
            return Reply::Error(text.to_owned());
        }
        // A script that has written already goes on.
        let is_stopped = *needs_space && !(in_script && state.has_written);
        if state.refuses == Refuses::Growth && is_stopped {
            let text = "OOM command not allowed when used memory > 'maxmemory'.";
            return Reply::Error(text.to_owned());
        }
        state.has_written = true;
    }
    dispatch(state, &name, &args[1..]).unwrap_or_else(Reply::Error)
}

fn dispatch(state: &mut State, name: &str, args: &[Bytes]) -> Answer {
    let store = &mut state.store;
    match (name, args) {
        ("TIME", []) => {
            let (seconds, micros) = (state.now_micros / 1_000_000, state.now_micros % 1_000_000);
            Ok(Reply::List(vec![text(seconds), text(micros)]))
        }
        ("PUBLISH", [channel, payload]) => {
            state.published.push((channel.clone(), payload.clone()));
            Ok(Reply::Int(0))
        }
        ("WAIT", [..]) => Ok(Reply::Int(1)),
        ("DEL", keys) => Ok(count(keys.iter().filter(|key| store.remove(key)).count())),
        ("PEXPIRE", [key, ms]) => Ok(Reply::Int(store.expire_in(key, whole(ms)?).into())),
        ("GET", [key]) => Ok(or_nil(store.find::<Bytes>(key)?.cloned())),
        ("SET", [key, value, px, ms]) if px.as_ref() == b"PX" => {
            let until_ms = store.now_ms().saturating_add_signed(whole(ms)?);
            store.put(key.clone(), Value::Text(value.clone()), Some(until_ms));
            Ok(Reply::Status("OK"))
        }
        ("HGET" | "HMGET" | "HSET" | "HSETNX" | "HDEL" | "HEXISTS" | "HGETALL" | "HINCRBY", _) => {
            hash(state, name, args)
        }
        ("SADD", [key, members @ ..]) => {
            let added = store.change(key, |set: &mut Set| {
                members.iter().filter(|member| set.insert((*member).clone())).count()
            })?;
            Ok(count(added))
        }
        ("SREM", [key, members @ ..]) => {
            let Some(_) = store.find::<Set>(key)? else { return Ok(Reply::Int(0)) };
            let removed = store.change(key, |set: &mut Set| {
                members.iter().filter(|member| set.remove(*member)).count()
            })?;
            Ok(count(removed))
        }
        // Any would do; these are the same in each run.
        ("SPOP", [key, max]) => {
            let max = whole(max)?.max(0) as usize;
            let Some(_) = store.find::<Set>(key)? else { return Ok(Reply::List(Vec::new())) };
            let popped = store.change(key, |set: &mut Set| {
                std::iter::from_fn(|| set.pop_first()).take(max).map(Reply::Bytes).collect()
            })?;
            Ok(Reply::List(popped))
        }
        ("SCARD", [key]) => Ok(count(store.find::<Set>(key)?.map_or(0, |set| set.len()))),
        ("SMEMBERS", [key]) => {
            let members = store.find::<Set>(key)?.cloned().unwrap_or_default();
            Ok(Reply::List(members.into_iter().map(Reply::Bytes).collect()))
        }
        ("ZADD" | "ZREM" | "ZSCORE" | "ZRANGEBYSCORE" | "ZRANGEBYLEX", [key, rest @ ..]) => {
            sorted(state, name, key, rest)
        }
        ("XADD" | "XTRIM" | "XRANGE" | "XREVRANGE", [key, rest @ ..]) => {
            stream(state, name, key, rest)
        }
        _ => Err(format!("ERR unknown command '{name}' or wrong number of arguments")),
    }
}

fn hash(state: &mut State, name: &str, args: &[Bytes]) -> Answer {
    let store = &mut state.store;
    let [key, rest @ ..] = args else { return Err(format!("ERR no key of '{name}'")) };
    match (name, rest) {
        ("HGET", [field]) => {
            let known = store.find::<Hash>(key)?.and_then(|hash| hash.get(field).cloned());
            Ok(or_nil(known))
        }
        ("HMGET", fields) => {
            let hash = store.find::<Hash>(key)?.cloned().unwrap_or_default();
            let values = fields.iter().map(|field| or_nil(hash.get(field).cloned()));
            Ok(Reply::List(values.collect()))
        }
        ("HSET", pairs) if !pairs.is_empty() && pairs.len().is_multiple_of(2) => {
            let added = store.change(key, |hash: &mut Hash| {
                let put = |pair: &&[Bytes]| hash.insert(pair[0].clone(), pair[1].clone()).is_none();
                pairs.chunks_exact(2).filter(put).count()
            })?;
            Ok(count(added))
        }
        ("HSETNX", [field, value]) => {
            let is_new = store.change(key, |hash: &mut Hash| {
                let is_new = !hash.contains_key(field);
                hash.entry(field.clone()).or_insert_with(|| value.clone());
                is_new
            })?;
            Ok(Reply::Int(is_new.into()))
        }
        ("HDEL", fields) => {
            let Some(_) = store.find::<Hash>(key)? else { return Ok(Reply::Int(0)) };
            let removed = store.change(key, |hash: &mut Hash| {
                fields.iter().filter(|field| hash.remove(*field).is_some()).count()
            })?;
            Ok(count(removed))
        }
        ("HEXISTS", [field]) => {
            let is_there = store.find::<Hash>(key)?.is_some_and(|hash| hash.contains_key(field));
            Ok(Reply::Int(is_there.into()))
        }
        ("HGETALL", []) => {
            let hash = store.find::<Hash>(key)?.cloned().unwrap_or_default();
            let pairs = hash.into_iter().flat_map(|(field, value)| [field, value]);
            Ok(Reply::List(pairs.map(Reply::Bytes).collect()))
        }
        ("HINCRBY", [field, by]) => {
            let by = whole(by)?;
            let sum = store.change(key, |hash: &mut Hash| -> Result<i64, String> {
                let sum = hash.get(field).map_or(Ok(0), |value| whole(value))? + by;
                hash.insert(field.clone(), sum.to_string().into());
                Ok(sum)
            })??;
            Ok(Reply::Int(sum))
        }
        _ => Err(format!("ERR wrong number of arguments for '{name}' command")),
    }
}

fn sorted(state: &mut State, name: &str, key: &Bytes, args: &[Bytes]) -> Answer {
    let store = &mut state.store;
    match (name, args) {
        ("ZADD", args) => {
            let (condition, pair) = match args {
                [word, pair @ ..] if matches!(&**word, b"NX" | b"GT") => (&**word, pair),
                pair => (&b""[..], pair),
            };
            let [score, member] = pair else { return Err("ERR syntax error".to_owned()) };
            let score = real(score)?;
            let is_new = store.change(key, |set: &mut Sorted| {
                let before = set.get(member).copied();
                let is_due = match (condition, before) {
                    (_, None) => true,
                    (b"NX", Some(_)) => false,
                    (b"GT", Some(before)) => score > before,
                    _ => true,
                };
                if is_due {
                    set.insert(member.clone(), score);
                }
                before.is_none()
            })?;
            Ok(Reply::Int(is_new.into()))
        }
        ("ZREM", members) => {
            let Some(_) = store.find::<Sorted>(key)? else { return Ok(Reply::Int(0)) };
            let removed = store.change(key, |set: &mut Sorted| {
                members.iter().filter(|member| set.remove(*member).is_some()).count()
            })?;
            Ok(count(removed))
        }
        ("ZSCORE", [member]) => {
            let score = store.find::<Sorted>(key)?.and_then(|set| set.get(member).copied());
            Ok(score.map_or(Reply::Nil, |score| text(format_args!("{score}"))))
        }
        ("ZRANGEBYSCORE", [from, to, limit @ ..]) => {
            let (from, to) = (bound(from)?, bound(to)?);
            let set = store.find::<Sorted>(key)?.cloned().unwrap_or_default();
            let is_in = |score: f64| {
                let is_from = if from.1 { score > from.0 } else { score >= from.0 };
                is_from && if to.1 { score < to.0 } else { score <= to.0 }
            };
            let mut found: Vec<(f64, Bytes)> =
                set.into_iter().map(|(member, score)| (score, member)).collect();
            found.retain(|(score, _)| is_in(*score));
            found.sort_by(|one, other| one.0.total_cmp(&other.0).then(one.1.cmp(&other.1)));
            limited(found.into_iter().map(|(_, member)| member), limit)
        }
        ("ZRANGEBYLEX", [from, to, limit @ ..]) => {
            let lex = |text: &Bytes| match text.first() {
                Some(b'[') => Ok(Bound::Included(text.slice(1..))),
                Some(b'(') => Ok(Bound::Excluded(text.slice(1..))),
                _ => Err("ERR min or max not valid string range item".to_owned()),
            };
            let (from, to) = (lex(from)?, lex(to)?);
            let set = store.find::<Sorted>(key)?.cloned().unwrap_or_default();
            let found: Vec<Bytes> = set.range((from, to)).map(|(name, _)| name.clone()).collect();
            limited(found.into_iter(), limit)
        }
        _ => Err(format!("ERR wrong number of arguments for '{name}' command")),
    }
}

fn stream(state: &mut State, name: &str, key: &Bytes, args: &[Bytes]) -> Answer {
    let store = &mut state.store;
    match (name, args) {
        ("XADD", [maxlen, max, id, fields @ ..]) if maxlen.as_ref() == b"MAXLEN" => {
            let (max, id) = (whole(max)?.max(0) as usize, entry_id(id)?);
            let is_new = store.find::<Stream>(key)?.is_none();
            let added = store.change(key, |stream: &mut Stream| {
                if id <= stream.last {
                    let why = "ERR The ID specified in XADD is equal or smaller than the target \
                               stream top item";
                    return Err(why.to_owned());
                }
                stream.last = id;
                stream.entries.insert(id, fields.to_vec());
                while stream.entries.len() > max {
                    stream.entries.pop_first();
                }
                Ok(())
            })?;
            if added.is_err() && is_new {
                store.remove(key);
            }
            added.map(|()| text(format_args!("{}-{}", id.0, id.1)))
        }
        ("XTRIM", [how, limit]) => {
            let Some(_) = store.find::<Stream>(key)? else { return Ok(Reply::Int(0)) };
            let (is_by_id, limit) = match how.as_ref() {
                b"MINID" => (true, entry_id(limit)?),
                _ => (false, (whole(limit)?.max(0) as u64, 0)),
            };
            let trimmed = store.change(key, |stream: &mut Stream| {
                let before = stream.entries.len();
                match is_by_id {
                    true => stream.entries = stream.entries.split_off(&limit),
                    false => {
                        while stream.entries.len() as u64 > limit.0 {
                            stream.entries.pop_first();
                        }
                    }
                }
                before - stream.entries.len()
            })?;
            Ok(count(trimmed))
        }
        ("XRANGE", [from, to, limit @ ..]) => range(state, key, (from, to), limit, false),
        ("XREVRANGE", [to, from, limit @ ..]) => range(state, key, (from, to), limit, true),
        _ => Err(format!("ERR wrong number of arguments for '{name}' command")),
    }
}

fn range(
    state: &mut State,
    key: &Bytes,
    (from, to): (&Bytes, &Bytes),
    limit: &[Bytes],
    is_reversed: bool,
) -> Answer {
    let stream = state.store.find::<Stream>(key)?.cloned().unwrap_or_default();
    let edge = |text: &Bytes| match text.as_ref() {
        b"-" | b"+" => Ok(Bound::Unbounded),
        [b'(', id @ ..] => Ok(Bound::Excluded(entry_id(id)?)),
        id => entry_id(id).map(Bound::Included),
    };
    let max = match limit {
        [word, max] if word.as_ref() == b"COUNT" => whole(max)?.max(0) as usize,
        _ => usize::MAX,
    };
    let entry = |(id, fields): (&(u64, u64), &Fields)| {
        let fields = fields.iter().cloned().map(Reply::Bytes).collect();
        Reply::List(vec![text(format_args!("{}-{}", id.0, id.1)), Reply::List(fields)])
    };
    let found = stream.entries.range((edge(from)?, edge(to)?));
    Ok(Reply::List(match is_reversed {
        true => found.rev().take(max).map(entry).collect(),
        false => found.take(max).map(entry).collect(),
    }))
}

fn limited(found: impl Iterator<Item = Bytes>, limit: &[Bytes]) -> Answer {
    let max = match limit {
        [] => usize::MAX,
        [_, _, max] => whole(max)?.max(0) as usize,
        _ => return Err("ERR syntax error".to_owned()),
    };
    Ok(Reply::List(found.take(max).map(Reply::Bytes).collect()))
}

fn or_nil(value: Option<Bytes>) -> Reply {
    value.map_or(Reply::Nil, Reply::Bytes)
}

fn count(count: usize) -> Reply {
    Reply::Int(count as i64)
}

fn text(what: impl ToString) -> Reply {
    Reply::Bytes(what.to_string().into())
}

fn read<T: std::str::FromStr>(bytes: &[u8]) -> Option<T> {
    std::str::from_utf8(bytes).ok()?.parse().ok()
}

fn whole(bytes: &[u8]) -> Result<i64, String> {
    read(bytes).ok_or_else(|| "ERR value is not an integer or out of range".to_owned())
}

fn real(bytes: &[u8]) -> Result<f64, String> {
    read(bytes).ok_or_else(|| "ERR value is not a valid float".to_owned())
}

/// The end of a range of scores, and whether it is outside.
fn bound(text: &[u8]) -> Result<(f64, bool), String> {
    match text {
        b"-inf" => Ok((f64::NEG_INFINITY, false)),
        b"+inf" => Ok((f64::INFINITY, false)),
        [b'(', score @ ..] => Ok((real(score)?, true)),
        score => Ok((real(score)?, false)),
    }
}

fn entry_id(text: &[u8]) -> Result<(u64, u64), String> {
    let text = std::str::from_utf8(text).unwrap_or_default();
    let (milliseconds, sequence) = text.split_once('-').unwrap_or((text, "0"));
    match (milliseconds.parse(), sequence.parse()) {
        (Ok(milliseconds), Ok(sequence)) => Ok((milliseconds, sequence)),
        _ => Err("ERR Invalid stream ID specified as stream command argument".to_owned()),
    }
}
