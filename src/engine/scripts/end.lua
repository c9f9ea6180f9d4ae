-- Ends a session, unless another node has taken it up. Its client leaves the rooms that are in its
-- list still, as some are where a server took over that had missed the last moments. Of a session
-- that has moved, as this server knows or as its lower fence shows, the fence stays for a while: a
-- node that had it before and has not heard of the move would write it down again.
--
-- KEYS: session, its direct messages, sessions of the node
-- ARGV: client, fence, node, prefix of all keys
local FENCE_KEPT_MS = 300000

local fields = redis.call('HMGET', KEYS[1], 'f', 't', 'm')
-- A server that has lost the last moments may have a lower fence.
if not fields[1] or tonumber(fields[1]) > tonumber(ARGV[2]) then
  return 0
end
leave_rooms(ARGV[4], ARGV[1], ARGV[2], ARGV[3], fields[3] or '', {})
redis.call('DEL', KEYS[1], KEYS[2])
if fields[2] or fields[1] ~= ARGV[2] then
  redis.call('HSET', KEYS[1], 'f', ARGV[2])
  redis.call('PEXPIRE', KEYS[1], FENCE_KEPT_MS)
end
redis.call('SREM', KEYS[3], ARGV[1])
return 1
