-- Finds a room, or makes it if it may be made. `candidate` is the epoch that a new room gets, or
-- one that goes on after a failover: another server numbers it from then on, and may give numbers
-- anew that were given before. Earlier epochs are kept with the number up to which each is good,
-- the latest first.
--
-- Returns the epoch, the number of the last message, the earlier epochs, whether the room was made,
-- the bytes of its messages, and the millisecond in which it was last renewed; nothing if there is no
-- such room.
local EPOCHS_MAX = 8

local function find_room(hash, stream, generation, candidate, may_make)
  local fields = redis.call('HMGET', hash, 'e', 's', 'g', 'o', 'b', 'x')
  local epoch, seq, of, elder = fields[1], tonumber(fields[2] or 0), fields[3], fields[4] or ''
  if not epoch then
    if may_make ~= '1' then
      return nil
    end
    -- Messages of a room whose hash was evicted have numbers of an epoch that nobody knows.
    redis.call('DEL', stream)
    redis.call('HSET', hash, 'e', candidate, 's', 0, 'g', generation, 'o', '', 'b', 0)
    -- Versions of presence begin with the time, above those of an earlier life.
    local time = redis.call('TIME')
    redis.call('HSETNX', hash, 'v', time[1] .. '000')
    return candidate, 0, '', true, 0, 0
  end
  if of ~= generation then
    local kept, count = {}, 0
    for one in string.gmatch(epoch .. ':' .. seq .. ' ' .. elder, '%S+') do
      if count < EPOCHS_MAX then
        count = count + 1
        kept[count] = one
      end
    end
    elder = table.concat(kept, ' ')
    redis.call('HSET', hash, 'e', candidate, 'g', generation, 'o', elder)
    epoch = candidate
  end
  return epoch, seq, elder, false, tonumber(fields[5] or 0), tonumber(fields[6] or 0)
end
