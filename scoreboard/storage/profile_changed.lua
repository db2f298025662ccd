-- Says that a name or a picture on a board has changed: its shown content is new, though no row is.
-- KEYS: meta, channel. ARGV: installation, board. Returns the new version; 0 when there is no board of this installation (emptied, or being
-- rebuilt): whoever makes it reads anew.
local META, CHANNEL = KEYS[1], KEYS[2]
local found = redis.pcall('HMGET', META, 'epoch', 'installation')
if found.err or not found[1] or found[2] ~= ARGV[1] then return 0 end
local version = redis.call('HINCRBY', META, 'version', 1)
local now = redis.call('TIME')
redis.call('HSET', META, 'top', version, 'updated', now[1] * 1000 + math.floor(now[2] / 1000))
redis.call('HINCRBY', META, 'names', 1)
redis.call('PUBLISH', CHANNEL, table.concat({'board', ARGV[1], ARGV[2], found[1], version, version, '', '[]'}, '\n'))
return version
