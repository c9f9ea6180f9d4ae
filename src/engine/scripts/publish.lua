-- Numbers a message in one room or several, keeps it, and publishes it to the nodes that have
-- members. Scripts are not rolled back, so the numbers are written down behind the messages: one
-- that could not be kept leaves no hole.
--
-- KEYS: the publisher's session or '-', the result under the message's id, and for each room its
--       hash and its stream
-- ARGV: the fence of the session or '', generation, whether rooms may be made, milliseconds that
--       the id is known, the message, and for each room: its channel, the epoch for a new life, the
--       most messages and bytes that it keeps, milliseconds that it is kept, its name; the names of
--       all rooms and the channel of new ones stand at the end of KEYS and ARGV
-- Returns: 0 and the numbers; 1 and those of the message before, if its id is known; 2 if the
--       session is elsewhere; 3 if there is no such room; 6 if there is no such session.
local ROOM_ARGS = 6

-- A room is renewed when so much of the time is over that it is kept.
local RENEWED_AT = 0.1

local rooms = (#KEYS - 3) / 2
local told = told_before(KEYS[1], ARGV[1], KEYS[2])
if told then
  return told
end
local numbers, seqs, sizes, renewed = {}, {}, {}, {}
for room = 1, rooms do
  local at = 5 + (room - 1) * ROOM_ARGS
  local hash, stream = KEYS[1 + 2 * room], KEYS[2 + 2 * room]
  local epoch, seq, _, is_new, size, renewed_ms =
    find_room(hash, stream, ARGV[2], ARGV[at + 2], ARGV[3])
  if not epoch then
    return { 3 }
  end
  if is_new then
    redis.call('ZADD', KEYS[#KEYS], 'NX', 0, ARGV[at + 6])
    redis.call('PUBLISH', ARGV[#ARGV], ARGV[at + 6])
  end
  seqs[room], sizes[room], renewed[room] = seq + 1, size, renewed_ms
  numbers[room] = epoch .. ':' .. digits(seq + 1)
end
local numbered = table.concat(numbers, ',')
local now_ms = time_ms()
local message = ARGV[5]
for room = 1, rooms do
  local at = 5 + (room - 1) * ROOM_ARGS
  local hash, stream = KEYS[1 + 2 * room], KEYS[2 + 2 * room]
  local id = digits(seqs[room]) .. '-0'
  local count_max, bytes_max = tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4])
  local function add()
    return redis.pcall('XADD', stream, 'MAXLEN', count_max, id, 'i', room - 1, 'n', numbered, 't',
      digits(now_ms), 'b', message)
  end
  if count_max > 0 then
    local added = add()
    -- A stream that is ahead of its hash is of another life. Any other error is one of a Redis that
    -- is full, or a replica, and must not cost the history.
    local err = type(added) == 'table' and added.err
    if err and string.find(err, 'equal or smaller', 1, true) then
      redis.call('DEL', stream)
      renewed[room] = 0
      added = add()
    end
    if type(added) == 'table' and added.err then
      return redis.error_reply(added.err)
    end
  end
  -- Counted without those that the stream has let go of, and counted anew when it seems too much.
  local bytes = sizes[room] + #message
  if bytes > bytes_max then
    local kept = redis.call('XREVRANGE', stream, '+', '-')
    bytes = 0
    for _, entry in ipairs(kept) do
      bytes = bytes + #entry[2][8]
      if bytes > bytes_max then
        bytes = bytes - #entry[2][8]
        local oldest = tonumber(string.match(entry[1], '^%d+')) + 1
        redis.call('XTRIM', stream, 'MINID', digits(oldest) .. '-0')
        break
      end
    end
  end
  redis.call('HSET', hash, 's', digits(seqs[room]), 'b', digits(bytes))
  if now_ms - renewed[room] > tonumber(ARGV[at + 5]) * RENEWED_AT then
    redis.call('HSET', hash, 'x', digits(now_ms))
    redis.call('PEXPIRE', hash, ARGV[at + 5])
    redis.call('PEXPIRE', stream, ARGV[at + 5])
  end
end
redis.call('SET', KEYS[2], numbered, 'PX', ARGV[4])
for room = 1, rooms do
  local at = 5 + (room - 1) * ROOM_ARGS
  redis.call('PUBLISH', ARGV[at + 1], 'M' .. (room - 1) .. ' ' .. numbered .. '\n' .. message)
end
return { 0, numbered }
