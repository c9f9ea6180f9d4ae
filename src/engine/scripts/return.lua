-- Leaves a session to whoever takes it up in time, if this node has it still.
--
-- KEYS: session, sessions of the node, sessions that nobody has
-- ARGV: client, node, milliseconds that the session is kept
if redis.call('HGET', KEYS[1], 'n') ~= ARGV[2] then
  return 0
end
local time = redis.call('TIME')
local now_ms = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
redis.call('ZADD', KEYS[3], string.format('%.0f', now_ms + tonumber(ARGV[3])), ARGV[1])
redis.call('HSET', KEYS[1], 'n', '', 'w', string.format('%.0f', now_ms))
redis.call('SREM', KEYS[2], ARGV[1])
return 1
