-- Ends sessions that nobody has taken up in time: takes them out of their rooms, and tells the
-- nodes. May be run by several nodes at once.
--
-- KEYS: sessions that nobody has
-- ARGV: prefix of all keys, the most to end
-- Returns: how many were due, and how many of them ended of which this shard had the whole.
local now_ms = time_ms()
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', digits(now_ms), 'LIMIT', 0, ARGV[2])
local ended = 0
for _, client in ipairs(due) do
  local session = ARGV[1] .. ':s:' .. client
  local fields = redis.call('HMGET', session, 'n', 'm', 'f', 'p')
  if fields[1] == '' then
    leave_rooms(ARGV[1], client, fields[3], '', fields[2] or '', {})
    redis.call('DEL', session, session .. ':d')
    if fields[4] and fields[4] ~= '' then
      ended = ended + 1
    end
  end
  redis.call('ZREM', KEYS[1], client)
end
return { #due, ended }
