-- Gives a session to the node of the connection that knows its secret. The node that had it is
-- told.
--
-- KEYS: session, its direct messages, sessions of the node, sessions that nobody has, nodes
-- ARGV: client, node, hash of the secret, route, prefix of all keys, milliseconds that it is kept,
--       the user of the connection's client or '', milliseconds since 1970 at which the node has
--       waited in vain, milliseconds of the node's lease, milliseconds since 1970 at which the
--       connection began
-- Returns: fence, the fence before, record, rooms, number of the last direct message, of the last
--       one that was delivered, and the messages; nothing if there is no such session; 0 if it is
--       too late: the client may be on another node by now, and would be closed there; 1 if it is:
--       another node has taken the session for a connection that began later.
-- What two nodes may be apart by when they say what this clock showed.
local CLOCK_SLACK_MS = 250
if time_ms() >= tonumber(ARGV[8]) then
  return 0
end
local fields = redis.call('HMGET', KEYS[1], 'h', 'p', 'n', 'r', 'm', 'q', 'a', 'f', 'u', 'b')
-- A session belongs to its user, whoever knows its secret.
if fields[1] ~= ARGV[3] or fields[2] ~= ARGV[4] or fields[9] ~= ARGV[7] then
  return false
end
-- The time is in it, so that no two nodes get the same one, even if this server loses the first.
local time = redis.call('TIME')
local micros = tonumber(time[1]) * 1000000 + tonumber(time[2])
local before, began = fields[3], tonumber(fields[10] or '0')
-- A time that is yet to come is of another server's clock, and says nothing.
if before and before ~= '' and before ~= ARGV[2] and began <= time_ms()
    and began > tonumber(ARGV[10]) + CLOCK_SLACK_MS then
  return 1
end
local fence = string.format('%.0f', math.max(tonumber(fields[8]) + 1, micros))
-- As a session that is written down.
redis.call('ZADD', KEYS[5], 'GT', digits(time_ms() + tonumber(ARGV[9])), ARGV[2])
redis.call('HSET', KEYS[1], 'f', fence, 'n', ARGV[2], 'w', '', 'b', ARGV[10])
redis.call('PEXPIRE', KEYS[1], ARGV[6])
redis.call('SADD', KEYS[3], ARGV[1])
redis.call('ZREM', KEYS[4], ARGV[1])
if before and before ~= '' and before ~= ARGV[2] then
  redis.call('HSET', KEYS[1], 't', '1')
  redis.call('SREM', ARGV[5] .. ':node:' .. before .. ':s', ARGV[1])
  redis.call('PUBLISH', ARGV[5] .. ':to:' .. before, 'X' .. ARGV[1] .. ' ' .. fence)
end
return { fence, fields[8], fields[4], fields[5], fields[6] or '0', fields[7] or '0',
  redis.call('XRANGE', KEYS[2], '-', '+') }
