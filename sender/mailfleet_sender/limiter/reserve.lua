-- Permits of one relay account for one pod (LIMITER). All times are microseconds of Redis' own TIME.
--
-- KEYS  limits    hash: version, rate (permits per second), burst, paused, connections, domains (names), domain:NAME (rate),
--                 quota, quota-days (midnights; none: the last 24 h count);
--                 and per campaign weight:C, paused:C, until:C (moments at which it closes and opens by turns, closing first),
--                 brake-percent:C, brake-sample:C, braked:C
--       state     hash: tat, v, last, interval, born; slow, slow-at, slowed-at; shut-until, probing; quota-from, quota-used, quota-lost
--       pods      hash: campaign|pod -> "asked-at hungry campaign"
--       tags      hash: campaign -> "finish-tag weight asked-at"
--       domains   hash: domain -> when its next permit may be used
--       quota     hash: number of a 5 minute bucket -> permits taken; known: when it was filled from the ledger
--       outcomes  hash: sent:C, failed:C, faults:C since the brake's window began
-- ARGV  campaign, pod, elapsed (us of the pod's monotonic clock since its last call; 0: first, or that one failed),
--       most (permits wanted in all; 0: the pod leaves),
--       what happened since its last call: sent, failed, faults, throttled, exhausted, returned ("bucket@known=n ..." permits not used),
--       then pairs: domain, wanted ("*": any domain without a limit)
-- reply {why, granted, first, spacing, grace, after, spread, connections, limited, room, taken, then for each domain that was
--        asked for: domain, granted, first, spacing}: us from the moment of this call
--       why: ok | wait | turn | domain | quota | brake | paused | closed
--            | seed (the limits are not here: write them from the ledger and ask again)
--            | usage (what is used of the quota is not here: the same)
--       connections: that the pod may hold (0: any number); limited: names of the domains with a limit;
--       room: us until the quota has room; taken: where these permits were taken from the quota, for `returned`

local LIMITS, STATE, PODS, TAGS, DOMAINS, QUOTA, OUTCOMES = unpack(KEYS)
local campaign, pod, elapsed, most = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local sent, failed, faults, throttled = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
local exhausted, returned, FIRST_WANT = tonumber(ARGV[9]), ARGV[10], 11

local AHEAD = 500000       -- a batch starts at most this far ahead, and is spread over as much: all lies within 1 s
local LARGEST = 500        -- permits in one batch
local MOST = 2 / 3         -- of what the rate gives in a span: no batch is more
local HUNGER = 1500000     -- an answer this old no longer says that the pod is hungry; pods ask once a second
local PRESENT = 3000000    -- a pod that asked within this time may hold connections
local SILENCE = 2000000    -- nobody asked for so long: what was booked has run off, or the clock was stepped
local STEP = 400000        -- Redis' clock and a pod's clock may differ by this between two calls
local UNTOLD = 100         -- weight of a campaign that the operator has not told of (yet, or again): the API's default
local LEAST_GRACE, MOST_GRACE = 100000, 1000000
local SLOWER, SLOWEST = 0.7, 0.05    -- what a throttling reply leaves of the rate, and what is always left of the limit
local SLOW_EVERY = 10000000          -- one decrease within this time: all pods meet the same throttling
local RETURN = 0.05 / 60000000       -- of the limit, that comes back in a microsecond: from 70 % in six minutes
local SHUT, PROBE = 600000000, 10000000 -- the relay says that its quota is used up; a probe that nobody heard of again
local BUCKET, BUCKETS = 300000000, 289 -- 24 h of 5 minute buckets, and one more for mail that the relay takes late
local LATEST = 2000000     -- a permit is used within this time, or lapses
local ADDED = 0.3          -- of the first batch's span, that earlier ones would have filled; half would be all of it
local FAULTS, FAULT_PERCENT = 20, 20 -- so many mails, and a larger share, refused for the sender's sake: a brake that each campaign has
local UNBRAKED = 200       -- minimum sample of a campaign without a brake of its own: what is forgotten depends on it
local FORGOTTEN = 10       -- minimum samples in the brake's window: then half of it is forgotten

-- tostring() would round a TIME to 14 digits.
local function whole(x) return string.format('%.0f', x) end
local function exact(x) return string.format('%.6f', x) end

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])

-- Limits and gates ------------------------------------------------------------------------------------
local l = redis.call('HMGET', LIMITS, 'rate', 'burst', 'paused', 'weight:' .. campaign, 'paused:' .. campaign,
                     'until:' .. campaign, 'connections', 'domains', 'quota', 'quota-days', 'brake-percent:' .. campaign,
                     'brake-sample:' .. campaign, 'braked:' .. campaign)
local limit, burst = tonumber(l[1] or nil), tonumber(l[2] or nil) or 1
local weight = tonumber(l[4] or nil) or UNTOLD
local is_paused = l[3] == '1' or l[5] == '1'
local is_closed = false
for turn in string.gmatch(l[6] or '', '%d+') do
  if now < tonumber(turn) then break end
  is_closed = not is_closed
end
local connections, limited = tonumber(l[7] or nil) or 0, l[8] or ''
local quota, days = tonumber(l[9] or nil), l[10]
local brake_percent, brake_sample, is_braked = tonumber(l[11] or nil), tonumber(l[12] or nil) or 1, l[13]
local SEED = {'seed', 0, 0, 0, 0, 0, 0, 0, '', 0, ''}
if not limit then return SEED end

-- The clock: one rule for restart, FLUSHALL, fail-over, clock step and long silence ------------------------
local s = redis.call('HMGET', STATE, 'tat', 'v', 'last', 'interval', 'born', 'slow', 'slow-at', 'slowed-at', 'shut-until',
                     'probing')
local tat, v = tonumber(s[1] or nil), tonumber(s[2] or nil) or 0
local last, interval_before = tonumber(s[3] or nil), tonumber(s[4] or nil)
local me = campaign .. '|' .. pod
local asked = redis.call('HGET', PODS, me)
local asked_at = asked and tonumber(string.match(asked, '^%d+'))

local stepped = asked_at and elapsed > 0 and math.abs(now - asked_at - elapsed) > STEP
if last and now < last and last - now <= STEP then now = last end -- slewed back: time stands still
local is_new = not last or now < last or now - last > SILENCE or stepped
local born = is_new and now or tonumber(s[5] or nil) or now

-- Throttling replies of the relay slow the whole account: at once, at most once in ten seconds. The rate comes back slowly.
local slow = tonumber(s[6] or nil) or 1
local slow_at, slowed_at = tonumber(s[7] or nil) or now, tonumber(s[8] or nil) or 0
slow = math.min(1, slow + math.max(0, now - slow_at) * RETURN)
if throttled > 0 and math.abs(now - slowed_at) >= SLOW_EVERY then
  slow, slowed_at = math.max(SLOWEST, slow * SLOWER), now
end
-- The relay's own quota, of which nobody told us: nothing for ten minutes, then one mail to see; if that is taken, all.
local shut_until, probing = tonumber(s[9] or nil), s[10]
if exhausted > 0 then
  shut_until, probing = now + SHUT, ''
elseif shut_until and probing == '1' and sent > 0 then
  shut_until, probing = nil, ''
end
shut_until = shut_until and math.min(shut_until, now + SHUT)

local rate = limit * slow
local interval = 1000000 / rate
local grace = math.min(MOST_GRACE, math.max(LEAST_GRACE, burst * interval))

local run_off = math.max(1000000, interval) -- after this time, whatever was out when the count began anew has run off
if is_new then
  tat = now + run_off
  v = 0
  redis.call('DEL', PODS, TAGS)
elseif interval < interval_before and tat > now then
  tat = now + (tat - now) * interval / interval_before -- the limit was raised: what is booked ahead shrinks with it
end
tat = math.min(tat, now + AHEAD + math.max(AHEAD, interval)) -- further ahead than it can be; stored on every path

local function save()
  redis.call('HSET', STATE, 'tat', whole(tat), 'v', exact(v), 'last', whole(now), 'interval', exact(interval),
             'born', whole(born), 'shut-until', shut_until and whole(shut_until) or '', 'probing', probing or '', 'slow', string.format('%.9f', slow), 'slow-at', whole(now), 'slowed-at', whole(slowed_at))
end

-- What happened: permits that were not used, and outcomes for the brake ---------------------------------------
for bucket, known, n in string.gmatch(returned, '(%d+)@(%d+)=(%d+)') do
  if redis.call('HGET', QUOTA, 'known') == known then
    local taken = tonumber(redis.call('HGET', QUOTA, bucket) or nil) or 0
    redis.call('HINCRBY', QUOTA, bucket, -math.min(taken, tonumber(n)))
    redis.call('HDEL', STATE, 'quota-from') -- the sum is made anew
  end
end

local function judge()
  local names = {'sent:' .. campaign, 'failed:' .. campaign, 'faults:' .. campaign}
  local counts = {redis.call('HINCRBY', OUTCOMES, names[1], sent), redis.call('HINCRBY', OUTCOMES, names[2], failed),
                  redis.call('HINCRBY', OUTCOMES, names[3], faults)}
  local bad = counts[2] + counts[3]
  local all = counts[1] + bad
  local is_failing = brake_percent and all >= brake_sample and bad * 100 > brake_percent * all
  local is_refused = counts[3] >= FAULTS and counts[3] * 100 > FAULT_PERCENT * all
  if not is_braked and (is_failing or is_refused) then
    is_braked = whole(now)
    redis.call('HSET', LIMITS, 'braked:' .. campaign, is_braked)
  end
  -- The share of the last outcomes counts, not that of all: a relay that turns bad late is noticed as soon.
  if not is_braked and all >= FORGOTTEN * (brake_percent and brake_sample or UNBRAKED) then
    for i = 1, 3 do redis.call('HSET', OUTCOMES, names[i], whole(math.floor(counts[i] / 2))) end
  end
end
if sent + failed + faults > 0 then judge() end

-- How many pods there are. In the first second nobody knows; each may hold one connection then.
local present = 1
local list = redis.call('HGETALL', PODS)
for i = 1, #list, 2 do
  if now - tonumber(string.match(list[i + 1], '^%d+')) > PRESENT then
    redis.call('HDEL', PODS, list[i])
  elseif list[i] ~= me then
    present = present + 1
  end
end
if connections > 0 then
  connections = now - born < 1000000 and 1 or math.max(1, math.floor(connections / present))
end

local function refuse(why, after, spread, room)
  save()
  return {why, 0, 0, 0, 0, math.min(1000000, math.max(0, math.ceil(after))), math.ceil(spread), connections, limited,
          whole(room or 0), ''}
end

if most == 0 or is_paused or is_closed or is_braked then
  redis.call('HDEL', PODS, me)
  return refuse(is_paused and 'paused' or is_closed and 'closed' or is_braked and 'brake' or 'wait', 1000000, 0)
end

-- Who else is hungry: pods that were given less than they could use -----------------------------------------
local hungry_pods, hungry_of_mine, hungry_of = 1, 1, {}
for i = 1, #list, 2 do
  local at, is_hungry, of = string.match(list[i + 1], '^(%d+) (%d) (.*)$')
  if list[i] ~= me and is_hungry == '1' and now - tonumber(at) <= HUNGER then
    hungry_pods = hungry_pods + 1
    if of == campaign then
      hungry_of_mine = hungry_of_mine + 1
    else
      hungry_of[of] = (hungry_of[of] or 0) + 1
    end
  end
end

local tag_of, weight_of = {}, {}
list = redis.call('HGETALL', TAGS)
for i = 1, #list, 2 do
  local tag, w, at = string.match(list[i + 1], '^(%S+) (%S+) (%d+)$')
  if now - tonumber(at) > 2 * HUNGER then
    redis.call('HDEL', TAGS, list[i])
  else
    tag_of[list[i]], weight_of[list[i]] = tonumber(tag), tonumber(w)
  end
end

-- Weights of all that compete; the lowest and the mean tag of the others; the share of the best-off pod.
local weights, lowest, sum, count, best = weight, nil, 0, 0, weight / hungry_of_mine
for of, pods in pairs(hungry_of) do
  if tag_of[of] then
    local tag = math.max(tag_of[of], v)
    weights = weights + weight_of[of]
    best = math.max(best, weight_of[of] / pods)
    lowest = math.min(lowest or tag, tag)
    sum, count = sum + tag, count + 1
  end
end
local tag = math.max(tag_of[campaign] or v, v)

local function remember(is_hungry)
  redis.call('HSET', PODS, me, whole(now) .. ' ' .. (is_hungry and 1 or 0) .. ' ' .. campaign)
  redis.call('HSET', TAGS, campaign, exact(tag) .. ' ' .. exact(weight) .. ' ' .. whole(now))
end

-- How large a batch, over how long a time ---------------------------------------------------------------------
-- Slots begin where the booking begins but reach further: a batch that books the whole span, followed by small ones,
-- would crowd the second after it. Nobody books more than MOST of the span at once (docs/decisions/0020).
local span = math.min(AHEAD, LARGEST * 1000000 / (rate * math.min(best / weights, MOST)))
local share = rate * weight / weights / hungry_of_mine * span / 1000000
local size
if not lowest then
  size = math.ceil(share)
elseif tag <= sum / count then
  size = math.ceil(share * 1.25) -- behind the mean: catches up
else
  size = math.floor(share)
end
size = math.max(1, math.min(LARGEST, size, math.ceil(rate * span / 1000000 * MOST)))
local start = math.max(tat, now)

-- Domains: of each at most the permits that its own rate allows inside the batch's time. The relay never waits for one.
local wants, wanted, opens = {}, 0, nil
for i = FIRST_WANT, #ARGV, 2 do
  local want = {name = ARGV[i], count = tonumber(ARGV[i + 1])}
  local per_second = want.name ~= '*' and tonumber(redis.call('HGET', LIMITS, 'domain:' .. want.name) or nil)
  if per_second then
    want.every = 1000000 / per_second
    local at = tonumber(redis.call('HGET', DOMAINS, want.name) or nil) or 0
    if at > start + span + want.every then -- a raised limit, or a clock stepped back: it cannot be further ahead
      at = start + span + want.every
      redis.call('HSET', DOMAINS, want.name, whole(at)) -- else each call would put it off again
    end
    want.at = math.max(start, at)
    local allowed = want.at < start + span and math.floor((start + span - want.at) / want.every - 1e-9) + 1 or 0
    if allowed < want.count then
      want.count = allowed
      opens = math.min(opens or math.huge, want.at + allowed * want.every)
    end
  end
  wanted = wanted + want.count
  wants[#wants + 1] = want
end
wanted = math.min(wanted, most)

-- The quota: what was taken since the window began is counted in buckets of five minutes --------------------------
-- A permit is counted in the bucket in which it may be used last, so a bucket that has left the window took with it
-- only what was used before.
local bucket, known, used = math.floor((now + LATEST) / BUCKET), nil, 0
if quota then
  known = redis.call('HGET', QUOTA, 'known')
  local from, closes = bucket - BUCKETS, nil
  if days then
    from = nil
    for midnight in string.gmatch(days, '%d+') do
      if tonumber(midnight) <= now then
        from = math.floor(tonumber(midnight) / BUCKET)
      else
        closes = closes or tonumber(midnight)
      end
    end
    if not from or not closes then return SEED end
  end
  if not known then
    -- Redis has lost what is used. What is out runs off and is recorded; then the ledger knows.
    local lost = tonumber(redis.call('HGET', STATE, 'quota-lost') or nil)
    if not lost or now < lost then
      lost = now
      redis.call('HSET', STATE, 'quota-lost', whole(now))
    end
    if now - lost >= LATEST then return {'usage', 0, 0, 0, 0, 0, 0, 0, '', 0, ''} end
    remember(false)
    return refuse('quota', lost + LATEST - now, 0, lost + LATEST - now)
  end
  local q = redis.call('HMGET', STATE, 'quota-from', 'quota-used')
  if tonumber(q[1] or nil) == from and q[2] then
    used = tonumber(q[2])
  else
    list = redis.call('HGETALL', QUOTA)
    for i = 1, #list, 2 do
      local b = tonumber(list[i])
      if b and b < from then redis.call('HDEL', QUOTA, list[i]) elseif b then used = used + tonumber(list[i + 1]) end
    end
    redis.call('HSET', STATE, 'quota-from', from, 'quota-used', used)
  end
  -- The last two seconds of a day belong to it: a permit of them might be used in the next one.
  if used >= quota or (closes and closes - now < LATEST) then
    local room = closes
    if not closes then -- when as many have left the window as are too many
      local left, b = used - quota, from
      while left >= 0 and b <= bucket do
        left = left - (tonumber(redis.call('HGET', QUOTA, whole(b)) or nil) or 0)
        b = b + 1
      end
      room = (b + BUCKETS) * BUCKET - LATEST
    end
    remember(false)
    return refuse('quota', room - now, math.min(hungry_pods * interval, 800000), room - now)
  end
  wanted = math.min(wanted, quota - used)
end
if shut_until and now < shut_until then
  remember(false)
  return refuse('quota', shut_until - now, math.min(hungry_pods * interval, 800000), shut_until - now)
end
if shut_until then wanted = math.min(wanted, 1) end
if wanted <= 0 then
  remember(false)
  return refuse('domain', opens and opens - start - span + 20000 or 1000000, 0)
end

-- Whose turn it is, and whether there is room --------------------------------------------------------------------
local slack = rate * span / 1000000 / weights -- one span of service, in virtual time
if lowest and tag > lowest + slack + 1e-6 and start - now > span / 2 then
  remember(true)
  return refuse('turn', start - now - span / 2, math.min(hungry_pods * interval, 200000))
end
if start > now + span then
  remember(true)
  if lowest and tag <= lowest + 1e-6 then -- its turn: only its own pods compete
    return refuse('wait', start - now - span, math.min((hungry_of_mine - 1) * interval, span))
  end
  return refuse('wait', start - now - span, math.min(hungry_pods * interval, 800000))
end

-- Book -----------------------------------------------------------------------------------------------------------
local granted = math.min(size, wanted)
local booked = granted
if tat == born + run_off and start == tat then
  -- The first batch: no earlier ones reach into its time, so what they would have put there comes on top of its own, as far
  -- as that crowds nothing when pods come and go meanwhile, but for the one that each pod's rounding may add.
  local missing = math.floor((span / interval - granted) * ADDED) - hungry_pods
  booked = math.max(1, granted - math.max(0, missing))
end
if shut_until then shut_until, probing = now + PROBE, '1' end
tat = start + booked * interval
v = math.max(v, math.min(lowest or tag, tag))
tag = math.min(tag + granted / weight, v + 4 * slack + granted / weight)
remember(granted < wanted or granted == LARGEST)
save()
local taken = ''
if quota then
  redis.call('HINCRBY', QUOTA, bucket, granted)
  redis.call('HINCRBY', STATE, 'quota-used', granted)
  taken = bucket .. '@' .. known
end
local reply = {'ok', granted, math.floor(start - now + span / granted / 2), math.floor(span / granted), math.floor(grace), 0, 0,
               connections, limited, 0, taken}
-- Limited domains first: theirs are the scarce permits.
local left = granted
for pass = 1, 2 do
  for _, want in ipairs(wants) do
    if (want.every ~= nil) == (pass == 1) then
      local n = math.min(want.count, left)
      left = left - n
      if want.every and n > 0 then redis.call('HSET', DOMAINS, want.name, whole(want.at + n * want.every)) end
      reply[#reply + 1] = want.name
      reply[#reply + 1] = n
      reply[#reply + 1] = want.every and math.floor(want.at - now) or 0
      reply[#reply + 1] = want.every and math.floor(want.every) or 0
    end
  end
end
return reply
