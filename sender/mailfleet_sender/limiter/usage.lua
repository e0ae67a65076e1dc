-- Fills an empty quota from what the ledger has recorded; the first who comes does it.
-- KEYS quota   ARGV number of a 5 minute bucket, permits used, ...   reply 1: written, 0: it was filled already
if redis.call('HEXISTS', KEYS[1], 'known') == 1 then return 0 end
redis.call('DEL', KEYS[1])
for i = 1, #ARGV, 2 do redis.call('HINCRBY', KEYS[1], ARGV[i], ARGV[i + 1]) end
local time = redis.call('TIME')
redis.call('HSET', KEYS[1], 'known', string.format('%.0f', tonumber(time[1]) * 1000000 + tonumber(time[2])))
return 1
