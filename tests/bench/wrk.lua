-- wrk: posts the lines of a file, one after the other, with the content type that follows the file; prints the results as
-- one line of JSON.
local requests, at = {}, 0

function init(arguments)
  local file, content_type = arguments[1], arguments[2]
  for line in io.lines(file) do
    requests[#requests + 1] = wrk.format("POST", wrk.path, { ["Content-Type"] = content_type }, line)
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
