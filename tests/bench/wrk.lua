-- wrk: asks for the paths of a file one after the other, or posts its lines where a content type is given behind it; and
-- prints what came of it as one line of JSON.
local requests, at = {}, 0

function init(arguments)
  local file, content_type = arguments[1], arguments[2]
  for line in io.lines(file) do
    requests[#requests + 1] = content_type
      and wrk.format("POST", wrk.path, { ["Content-Type"] = content_type }, line)
      or wrk.format("GET", line)
  end
end

function request()
  at = at % #requests + 1
  return requests[at]
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    'RESULT {"requests": %d, "microseconds": %d, "refused": %d, "unconnected": %d, "broken": %d, "late": %d, '
    .. '"p50_us": %d, "p99_us": %d}\n',
    summary.requests, summary.duration, errors.status, errors.connect, errors.read + errors.write, errors.timeout,
    latency:percentile(50), latency:percentile(99)))
end
