-- Takes a client out of those of its rooms (a name a line) that are not in `stays` and in which it
-- is shown still, by its session's fence or an earlier one, and tells the nodes. Its node tells so
-- before, which may be lost with the node, or with a server that another one takes over from.
local function leave_rooms(prefix, client, fence, node, rooms, stays)
  for room in string.gmatch(rooms, '[^\n]+') do
    local key = prefix .. ':{' .. room .. '}'
    local shown = not stays[room] and redis.call('HGET', key .. ':p', client)
    if shown and tonumber(string.match(shown, '^%d+')) <= tonumber(fence) then
      -- What may fail comes first: scripts are not rolled back.
      local version = next_version(key .. ':m')
      redis.call('HDEL', key .. ':p', client)
      redis.call('PUBLISH', key .. ':c', 'L' .. digits(version) .. ' ' .. client .. ' ' .. fence ..
        ' ' .. node .. '\n')
    end
  end
end

