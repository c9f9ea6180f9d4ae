-- Opens a room on a node: makes it if it may be made, and returns what the node must know.
--
-- KEYS: hash, stream, presence, names of all rooms
-- ARGV: name, generation, epoch for a new life, whether it may be made, number after which messages
--       are wanted, the most of them, milliseconds that the room is kept, channel of new rooms
-- Returns: epoch, last number, earlier epochs, version of presence, milliseconds since 1970,
--       messages, members; nothing if there is no such room.
local epoch, seq, elder, is_new =
  find_room(KEYS[1], KEYS[2], ARGV[2], ARGV[3], ARGV[4])
if not epoch then
  return false
end
redis.call('PEXPIRE', KEYS[1], ARGV[7])
redis.call('PEXPIRE', KEYS[2], ARGV[7])
redis.call('PEXPIRE', KEYS[3], ARGV[7])
if redis.call('ZADD', KEYS[4], 'NX', 0, ARGV[1]) == 1 or is_new then
  redis.call('PUBLISH', ARGV[8], ARGV[1])
end
local messages = redis.call('XREVRANGE', KEYS[2], '+', '(' .. ARGV[5] .. '-0', 'COUNT', ARGV[6])
local version = redis.call('HGET', KEYS[1], 'v') or '0'
local members = redis.call('HGETALL', KEYS[3])
return { epoch, tostring(seq), elder, version, digits(time_ms()), messages, members }
