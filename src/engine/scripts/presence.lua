-- Shows a client in a room, or takes it out, and tells the nodes. A change by a node that has lost
-- the client's session since is passed over.
--
-- KEYS: hash of the room, presence, the client's session
-- ARGV: 'P' to show or 'L' to take out, client, fence, node, how it is shown, channel, milliseconds
--       that the room is kept
-- Returns: whether it was changed.
local client, fence = ARGV[2], tonumber(ARGV[3])
local known = redis.call('HGET', KEYS[2], client)
if known and tonumber(string.match(known, '^%d+')) > fence then
  return 0
end
if ARGV[1] == 'L' and not known then
  return 0
end
local session = ARGV[1] == 'P' and redis.call('HGET', KEYS[3], 'f')
if session and tonumber(session) > fence then
  return 0
end
-- What may fail comes first: scripts are not rolled back.
local version = next_version(KEYS[1])
if ARGV[1] == 'P' then
  redis.call('HSET', KEYS[2], client, ARGV[3] .. ' ' .. ARGV[4] .. ' ' .. ARGV[5])
else
  redis.call('HDEL', KEYS[2], client)
end
redis.call('PEXPIRE', KEYS[1], ARGV[7])
redis.call('PEXPIRE', KEYS[2], ARGV[7])
redis.call('PUBLISH', ARGV[6], ARGV[1] .. string.format('%.0f', version) .. ' ' .. client .. ' ' ..
  ARGV[3] .. ' ' .. ARGV[4] .. '\n' .. ARGV[5])
return 1
