-- Shows a client in a room, or takes it out, and tells the nodes. A change by a node that has lost
-- the client's session since is passed over.
--
-- KEYS: hash of the room, presence, the client's session, which is written down before it is shown
-- ARGV: 'P' to show or 'L' to take out, client, fence, node, how it is shown, channel, milliseconds
--       that the room is kept, name of the room
-- Returns: 1 if it was changed, 0 if not, and -1 if another node has shown the client since.
local client, fence = ARGV[2], tonumber(ARGV[3])
local known = redis.call('HGET', KEYS[2], client)
if known and tonumber(string.match(known, '^%d+')) > fence then
  return -1
end
if ARGV[1] == 'L' and not known then
  return 0
end
local version
if ARGV[1] == 'P' then
  -- It may never have been shown here by the node that has it now.
  local of_session = redis.call('HMGET', KEYS[3], 'f', 'm')
  if not of_session[1] or tonumber(of_session[1]) > fence then
    return 0
  end
  -- What may fail comes first: scripts are not rolled back.
  version = next_version(KEYS[1])
  redis.call('HSET', KEYS[2], client, ARGV[3] .. ' ' .. ARGV[4] .. ' ' .. ARGV[5])
  -- Whoever ends the session takes the client out of the rooms in its list. Where a full Redis has
  -- refused the latest list, this room is not in it yet.
  local rooms, is_listed = of_session[2] or '', false
  for name in string.gmatch(rooms, '[^\n]+') do
    is_listed = is_listed or name == ARGV[8]
  end
  if not is_listed then
    redis.call('HSET', KEYS[3], 'm', rooms == '' and ARGV[8] or rooms .. '\n' .. ARGV[8])
  end
else
  -- Fails here if it is of another kind. After the first write a Redis that is full lets a script go
  -- on: who leaves, leaves.
  redis.call('HGET', KEYS[1], 'v')
  redis.call('HDEL', KEYS[2], client)
  version = next_version(KEYS[1])
end
redis.call('PEXPIRE', KEYS[1], ARGV[7])
redis.call('PEXPIRE', KEYS[2], ARGV[7])
redis.call('PUBLISH', ARGV[6], ARGV[1] .. string.format('%.0f', version) .. ' ' .. client .. ' ' ..
  ARGV[3] .. ' ' .. ARGV[4] .. '\n' .. ARGV[5])
return 1
