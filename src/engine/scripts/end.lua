-- Ends a session, unless another node has taken it up.
--
-- KEYS: session, its direct messages, sessions of the node
-- ARGV: client, fence
if redis.call('HGET', KEYS[1], 'f') ~= ARGV[2] then
  return 0
end
redis.call('DEL', KEYS[1], KEYS[2])
redis.call('SREM', KEYS[3], ARGV[1])
return 1
