-- Says why who sends a message may not, or what it was told before; nothing if the message is new.
-- `fence` is that of the sender's session, or '' if it has none, and `result` the key under which
-- the result of this message is kept.
local function told_before(session, fence, result)
  if fence ~= '' then
    local known = redis.call('HGET', session, 'f')
    if known ~= fence then
      return { known and 2 or 6 }
    end
  end
  local known = redis.call('GET', result)
  if known then
    return { 1, known }
  end
end

