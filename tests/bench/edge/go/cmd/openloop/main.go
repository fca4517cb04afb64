// Sends callbacks or queries at a fixed rate, even when the server is slow, and measures each from the moment at which it was
// due: what waits behind a slow answer counts as slow itself (no coordinated omission). Prints one JSON object.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

type due struct {
	at      time.Time
	request []byte
}

type report struct {
	BeganNs  int64   `json:"began_ns"` // when the first was due, by the clock of the day
	Requests int     `json:"requests"`
	OK       int     `json:"ok"`
	Seconds  float64 `json:"seconds"`
	P50us    int64   `json:"p50_us"`
	P99us    int64   `json:"p99_us"`
	P999us   int64   `json:"p999_us"`
	MaxUs    int64   `json:"max_us"`
	SentLate int     `json:"sent_late"`
}

func main() {
	address := flag.String("address", "", "host:port on loopback")
	path := flag.String("path", "", "path of the callback")
	contentType := flag.String("content-type", "", "of the bodies; without one, each line is a path to get")
	bodies := flag.String("bodies", "", "file with a body a line")
	rate := flag.Float64("rate", 500, "requests a second")
	seconds := flag.Float64("seconds", 5, "how long")
	connections := flag.Int("connections", 64, "kept open")
	flag.Parse()
	if host, _, err := net.SplitHostPort(*address); err != nil || !net.ParseIP(host).IsLoopback() {
		log.Fatal("only a loopback address is loaded")
	}
	requests := read(*bodies, *address, *path, *contentType)
	count := int(*rate * *seconds)
	latencies, ok, late := make([]int64, count), make([]bool, count), 0

	type numbered struct {
		due
		number int
	}
	// As many as there are requests, so that the schedule never waits for a connection.
	queue := make(chan numbered, count)
	var senders sync.WaitGroup
	for range *connections {
		connection, err := net.Dial("tcp", *address)
		if err != nil {
			log.Fatal(err)
		}
		senders.Go(func() {
			defer connection.Close()
			answers := bufio.NewReader(connection)
			for next := range queue {
				ok[next.number] = exchange(connection, answers, next.request)
				latencies[next.number] = time.Since(next.at).Microseconds()
			}
		})
	}
	// Go's own timers are a millisecond coarse; the kernel's sleep is not.
	runtime.LockOSThread()
	began := time.Now().Add(10 * time.Millisecond)
	for number := range count {
		at := began.Add(time.Duration(float64(number) / *rate * float64(time.Second)))
		if wait := time.Until(at); wait > 0 {
			left := syscall.NsecToTimespec(wait.Nanoseconds())
			_ = syscall.Nanosleep(&left, nil)
		}
		if time.Since(at) > time.Millisecond {
			late++
		}
		queue <- numbered{due{at, requests[number%len(requests)]}, number}
	}
	close(queue)
	senders.Wait()
	took := time.Since(began).Seconds()

	slices.Sort(latencies)
	at := func(quantile float64) int64 { return latencies[min(count-1, int(quantile*float64(count)))] }
	accepted := 0
	for _, each := range ok {
		if each {
			accepted++
		}
	}
	_ = json.NewEncoder(os.Stdout).Encode(report{began.UnixNano(), count, accepted, took, at(.5), at(.99), at(.999), latencies[count-1], late})
}

func read(bodies, address, path, contentType string) [][]byte {
	text, err := os.ReadFile(bodies)
	if err != nil {
		log.Fatal(err)
	}
	var requests [][]byte
	for line := range strings.Lines(string(text)) {
		body := strings.TrimSuffix(line, "\n")
		if contentType == "" {
			requests = append(requests, fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", body, address))
			continue
		}
		requests = append(requests, fmt.Appendf(nil,
			"POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s", path, address, contentType, len(body), body))
	}
	return requests
}

func exchange(connection net.Conn, answers *bufio.Reader, request []byte) bool {
	if _, err := connection.Write(request); err != nil {
		return false
	}
	answer, err := http.ReadResponse(answers, nil)
	if err != nil {
		return false
	}
	_, err = io.Copy(io.Discard, answer.Body)
	return err == nil && answer.StatusCode == http.StatusOK
}
