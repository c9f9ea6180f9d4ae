-- Writes a session down. One that another node has taken up since is left as it is. Its client
-- leaves the rooms that were in its list and are not any more.
--
-- KEYS: session, sessions of the node, sessions that nobody has, nodes
-- ARGV: client, node, fence, hash of its secret, route, record, its rooms (a name a line), since when
--       it is away or '', milliseconds that it is kept, numbers of the last direct message that a
--       connection was sent, and of the last one that the node knows, the user of its client or '',
--       milliseconds of the node's lease, prefix of all keys, how many its node has written down
--       before
-- Returns: 0 if another node has it; 1 and the number of its last direct message.
local known = redis.call('HMGET', KEYS[1], 'f', 'q', 'm', 'o')
-- A server that has lost the last moments may have a lower fence.
if known[1] and tonumber(known[1]) > tonumber(ARGV[3]) then
  return { 0 }
end
local last = known[2] or '0'
if tonumber(last) < tonumber(ARGV[11]) then
  last = ARGV[11]
end
-- Later ones may be here: an order whose script was forgotten goes once more, behind them.
local order = string.match(known[4] or '', '^' .. ARGV[3] .. ' (%d+)$')
if order and tonumber(order) > tonumber(ARGV[15]) then
  return { 1, last }
end
-- The node may end before its first beat is taken: without a lease nobody would take its sessions.
-- And it may have been away for longer than its lease: others would take this one before its next
-- beat.
redis.call('ZADD', KEYS[4], 'GT', digits(time_ms() + tonumber(ARGV[13])), ARGV[2])
redis.call('HSET', KEYS[1], 'f', ARGV[3], 'n', ARGV[2], 'h', ARGV[4], 'p', ARGV[5], 'r', ARGV[6],
  'm', ARGV[7], 'w', ARGV[8], 'a', ARGV[10], 'q', last, 'u', ARGV[12],
  'o', ARGV[3] .. ' ' .. ARGV[15])
redis.call('PEXPIRE', KEYS[1], ARGV[9])
redis.call('SADD', KEYS[2], ARGV[1])
redis.call('ZREM', KEYS[3], ARGV[1])
local before = known[3] or ''
if before ~= ARGV[7] then
  local is_in = {}
  for room in string.gmatch(ARGV[7], '[^\n]+') do
    is_in[room] = true
  end
  leave_rooms(ARGV[14], ARGV[1], ARGV[3], ARGV[2], before, is_in)
end
return { 1, last }
