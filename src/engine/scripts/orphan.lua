-- Takes sessions from a node that is gone: nobody has them until they are resumed or end. May be
-- run by several nodes at once.
--
-- KEYS: nodes, sessions of the node that is gone, sessions that nobody has
-- ARGV: that node, prefix of all keys, milliseconds that a session is kept, the most to look at,
--       whether to go by its lease ('1'), or because it says itself that it goes ('0')
-- Returns: how many are left, and how many were looked at.
local now_ms = time_ms()
local lease = redis.call('ZSCORE', KEYS[1], ARGV[1])
if ARGV[5] == '1' and lease and tonumber(lease) >= now_ms then
  return { 0, 0 }
end
local clients = redis.call('SPOP', KEYS[2], ARGV[4])
for _, client in ipairs(clients) do
  local session = ARGV[2] .. ':s:' .. client
  if redis.call('HGET', session, 'n') == ARGV[1] then
    local since = redis.call('HGET', session, 'w')
    if since == '' then
      since = digits(now_ms)
    end
    redis.call('HSET', session, 'n', '', 'w', since)
    redis.call('ZADD', KEYS[3], digits(tonumber(since) + tonumber(ARGV[3])), client)
  end
end
local left = redis.call('SCARD', KEYS[2])
if left == 0 then
  redis.call('ZREM', KEYS[1], ARGV[1])
end
return { left, #clients }
