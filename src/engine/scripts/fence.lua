-- Has a shard know that a node has taken up a session in the shard that keeps it. What is known of
-- it here goes to the node, and nothing that the node which had it sends is taken any more. Where
-- nothing is known of it, the fence stays for a while: that node may be about to write it down.
--
-- KEYS: session, sessions of the node, sessions that nobody has, nodes
-- ARGV: client, node, fence, milliseconds that it is kept, milliseconds of the node's lease
-- Returns: whether something was known of it, and its rooms in this shard.
local FENCE_KEPT_MS = 300000

local fields = redis.call('HMGET', KEYS[1], 'f', 'n', 'm')
if fields[1] and tonumber(fields[1]) > tonumber(ARGV[3]) then
  return { 0, '' }
end
if not fields[2] then
  redis.call('HSET', KEYS[1], 'f', ARGV[3], 't', '1')
  redis.call('PEXPIRE', KEYS[1], FENCE_KEPT_MS)
  return { 0, '' }
end
-- As a session that is written down.
redis.call('ZADD', KEYS[4], 'GT', digits(time_ms() + tonumber(ARGV[5])), ARGV[2])
if fields[2] ~= '' and fields[2] ~= ARGV[2] then
  redis.call('HSET', KEYS[1], 't', '1')
end
redis.call('HSET', KEYS[1], 'f', ARGV[3], 'n', ARGV[2], 'w', '')
redis.call('PEXPIRE', KEYS[1], ARGV[4])
redis.call('SADD', KEYS[2], ARGV[1])
redis.call('ZREM', KEYS[3], ARGV[1])
return { 1, fields[3] or '' }
