-- The time of this server, in milliseconds since 1970.
local function time_ms()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

-- A whole number in all its digits.
local function digits(number)
  return string.format('%.0f', number)
end

