-- Writes a session down. One that another node has taken up since is left as it is.
--
-- KEYS: session, sessions of the node, sessions that nobody has
-- ARGV: client, node, fence, hash of its secret, route, record, its rooms (a name a line), since when
--       it is away or '', milliseconds that it is kept, number of the last direct message that a
--       connection was sent
-- Returns: whether it was written.
local fence = redis.call('HGET', KEYS[1], 'f')
if fence and fence ~= ARGV[3] then
  return 0
end
redis.call('HSET', KEYS[1], 'f', ARGV[3], 'n', ARGV[2], 'h', ARGV[4], 'p', ARGV[5], 'r', ARGV[6],
  'm', ARGV[7], 'w', ARGV[8], 'a', ARGV[10])
redis.call('PEXPIRE', KEYS[1], ARGV[9])
redis.call('SADD', KEYS[2], ARGV[1])
return 1
