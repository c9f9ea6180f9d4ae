-- Counts a change of who is in a room. Versions begin with the time, so that they are above those of
-- an earlier life of the room, whose hash may have been evicted.
local function next_version(hash)
  local version = redis.call('HINCRBY', hash, 'v', 1)
  if version == 1 then
    version = tonumber(redis.call('TIME')[1]) * 1000
    redis.call('HSET', hash, 'v', string.format('%.0f', version))
  end
  return version
end
