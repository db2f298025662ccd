-- Takes or keeps a lease. KEYS: lease. ARGV: holder, milliseconds. Returns who has it now.
local found = redis.call('GET', KEYS[1])
if found and found ~= ARGV[1] then return found end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return ARGV[1]
