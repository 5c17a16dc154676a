-- The decision for gopher-lua: networks, as address and mask in turn, are set by
-- the host. Lua 5.1 has no operations on bits, so a mask is a division.
local char, floor = string.char, math.floor
local list = {}
for i = 1, #networks, 2 do
  local size = 4294967296 - networks[i + 1]
  list[#list + 1] = { size, networks[i] / size }
end

local function listed(a, b, c, d)
  local address = ((a * 256 + b) * 256 + c) * 256 + d
  for i = 1, #list do
    local n = list[i]
    if floor(address / n[1]) == n[2] then return true end
  end
  return false
end

local function le(n, bytes)
  local out = {}
  for i = 1, bytes do
    out[i] = char(n % 256)
    n = floor(n / 256)
  end
  return table.concat(out)
end

-- Returns the record, or nil for a permit. An address is a string of 16 bytes.
function decide(protocol, port, remote, app, pid, connection)
  if protocol ~= 6 or port ~= 443 or app:sub(1, 9) ~= "/usr/bin/" or listed(remote:byte(13, 16)) then return nil end
  return "SPL1" .. remote .. le(port, 2) .. char(protocol, 4) .. le(pid, 4) .. ("\0"):rep(12) .. le(connection, 8)
end
