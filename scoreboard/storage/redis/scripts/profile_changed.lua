-- Says that names or pictures of users have changed: what a board shows may be new, though no row is.
--
-- KEYS: order, entry, meta, channel. ARGV: installation, board, how many rows are shown, how many are read at most,
-- then raw user ids.
-- Returns the new version; 0 when no row that is read has changed, or when there is no board of this installation
-- (emptied, or being rebuilt): whoever makes it reads anew.
--
-- The highest of the users decides. Nobody of them ever was on the board: nothing. Below the rows that are read: only
-- `names` rises. A node may know such a user from when he stood higher, and drops what it knows with its next read,
-- which is before or when he is back there. Among the rows that are read: there is a new version. Among those that are
-- shown: there is a new position too.
local ORDER, ENTRY, META, CHANNEL = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local found = redis.pcall('HMGET', META, 'epoch', 'installation', 'top')
if found.err or not found[1] or found[2] ~= ARGV[1] then return 0 end

local place
for i = 5, #ARGV do
  local entry = redis.pcall('HGET', ENTRY, ARGV[i])
  -- else the user never was on it, or the key holds another type, and the board will be made anew
  if type(entry) == 'string' then
    local rank = redis.pcall('ZRANK', ORDER, string.sub(entry, 1, 16) .. ARGV[i])
    rank = type(rank) == 'number' and rank or math.huge  -- he has left it
    place = place and math.min(place, rank) or rank
  end
end
if not place then return 0 end
redis.call('HINCRBY', META, 'names', 1)
if place >= tonumber(ARGV[4]) then return 0 end

local version, top = redis.call('HINCRBY', META, 'version', 1), tonumber(found[3] or 0)
if place < tonumber(ARGV[3]) then
  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  top = version
  redis.call('HSET', META, 'top', top, 'top_at', now, 'updated', now)
end
redis.call('PUBLISH', CHANNEL, table.concat({'board', ARGV[1], ARGV[2], found[1], version, top, '', '[]'}, '\n'))
return version
