-- Gives back what a call newly reserved for actions that then did not count. KEYS: window, cooldown of each; ARGV:
-- action id, what (1 slot, 2 cooldown, 3 both) each.
for i = 1, #KEYS / 2 do
  local id, what = ARGV[2 * i - 1], tonumber(ARGV[2 * i])
  if what % 2 == 1 then redis.call('ZREM', KEYS[2 * i - 1], id) end
  if what >= 2 and redis.call('GET', KEYS[2 * i]) == id then redis.call('DEL', KEYS[2 * i]) end
end
