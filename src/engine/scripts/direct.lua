-- Numbers a direct message, keeps it in the inbox of its receiver, and tells the node that has the
-- receiver's connection.
--
-- KEYS: the sender's session or '-', the receiver's session, its direct messages, the result under
--       the message's id
-- ARGV: the fence of the sender's session or '', milliseconds that the id is known, the most
--       messages and bytes that wait, milliseconds that the inbox is kept, the receiver, prefix of
--       all keys, the message
-- Returns: 0 and the number; 1 and that of the message before, if its id is known; 2 if the
--       sender's session is elsewhere; 3 if there is no such receiver; 4 if it is away and its inbox
--       is full; 5 if it is behind; 6 if there is no such session as the sender's.
local told = told_before(KEYS[1], ARGV[1], KEYS[4])
if told then
  return told
end
local fields = redis.call('HMGET', KEYS[2], 'n', 'w', 'q', 'a', 'z')
if not fields[1] then
  return { 3 }
end
local seq, delivered = tonumber(fields[3] or 0), tonumber(fields[4] or 0)
local bytes = 0
if seq > delivered then
  bytes = tonumber(fields[5] or 0)
end
local message = ARGV[8]
if seq - delivered >= tonumber(ARGV[3]) or bytes + #message > tonumber(ARGV[4]) then
  if fields[1] == '' or fields[2] ~= '' then
    return { 4 }
  end
  return { 5 }
end
local number = digits(seq + 1)
redis.call('XADD', KEYS[3], 'MAXLEN', ARGV[3], number .. '-0', 'b', message)
redis.call('PEXPIRE', KEYS[3], ARGV[5])
redis.call('HSET', KEYS[2], 'q', number, 'z', digits(bytes + #message))
redis.call('SET', KEYS[4], number, 'PX', ARGV[2])
if fields[1] ~= '' then
  local head = 'D' .. ARGV[6] .. ' ' .. number
  redis.call('PUBLISH', ARGV[7] .. ':to:' .. fields[1], head .. '\n' .. message)
end
return { 0, number }
