-- wrk script: send the bytes of a file as they are, or with a number in them that is new each time.
--
--     wrk ... -s asks.lua http://host:port -- FILE FIRST
--
-- FILE holds one whole HTTP request. Each run of nine # in it stands for the number: FIRST, FIRST + 1, and so on, all
-- of nine digits, so that Content-Length holds. Without one the request is fixed, and wrk spends nothing on making it.
-- At the end one line of JSON says what came of it (`wrk.py` reads it).

function init(arguments)
  local file = assert(io.open(arguments[1], "rb"))
  local template = file:read("*a")
  file:close()
  local number = tonumber(arguments[2])
  local start, stop = template:find("#########", 1, true)
  if not start then
    request = function() return template end
    return
  end
  local before, after = template:sub(1, start - 1), template:sub(stop + 1)
  request = function()
    number = number + 1
    return before .. number .. after
  end
end

function done(summary, latency, _)
  local errors = summary.errors
  io.write(string.format(
    'RESULT {"requests":%d,"duration_us":%d,"errors":%d,"p50_us":%.1f,"p99_us":%.1f}\n',
    summary.requests, summary.duration,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout,
    latency:percentile(50), latency:percentile(99)))
end
