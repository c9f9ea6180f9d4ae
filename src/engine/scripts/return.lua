-- Takes a session off the list of this node, and leaves it to whoever takes it up in time, if this
-- node has it still.
--
-- KEYS: session, sessions of the node, sessions that nobody has
-- ARGV: client, node, milliseconds that the session is kept
redis.call('SREM', KEYS[2], ARGV[1])
if redis.call('HGET', KEYS[1], 'n') ~= ARGV[2] then
  return 0
end
local now_ms = time_ms()
redis.call('ZADD', KEYS[3], digits(now_ms + tonumber(ARGV[3])), ARGV[1])
redis.call('HSET', KEYS[1], 'n', '', 'w', digits(now_ms))
return 1
