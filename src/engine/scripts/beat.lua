-- Renews the lease of a node. Returns the nodes whose leases have run out, what is known of the
-- others, and milliseconds since 1970.
--
-- KEYS: nodes, what is known of the node
-- ARGV: node, milliseconds of the lease, what is known of it, prefix of all keys, the most nodes to
--       tell of
local now_ms = time_ms()
redis.call('ZADD', KEYS[1], digits(now_ms + tonumber(ARGV[2])), ARGV[1])
redis.call('SET', KEYS[2], ARGV[3], 'PX', tonumber(ARGV[2]) * 3)
local now = digits(now_ms)
local known = {}
for _, node in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], now, '+inf', 'LIMIT', 0, ARGV[5])) do
  local about = redis.call('GET', ARGV[4] .. ':node:' .. node)
  if about then
    known[#known + 1] = about
  end
end
return { redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', '(' .. now), known, now }
