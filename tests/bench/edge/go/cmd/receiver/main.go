// The Go peer of the edge: fasthttp (or net/http) and franz-go, doing the same work for a complete and a create.
package main

import (
	"context"
	"errors"
	"io"
	"log"
	"mime"
	"net/http"
	"net/url"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/goccy/go-json"
	"github.com/twmb/avro"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/valyala/fasthttp"
)

const maxBodyBytes = 1 << 20

type receiver struct {
	client *kgo.Client
	topic  string
	tokens map[string]string
	encode func([]byte, *TaskEvent) ([]byte, error)

	produce func(context.Context, *kgo.Record) error
}

type answer struct {
	Success    bool   `json:"success"`
	EventID    string `json:"eventId"`
	Durability string `json:"durability"`
}

func main() {
	schemaText, err := os.ReadFile(os.Getenv("PEER_SCHEMA_FILE"))
	must(err)
	schema, err := avro.Parse(string(schemaText))
	must(err)
	lingers := os.Getenv("PEER_LINGER") != ""
	linger := 2 * time.Millisecond
	if lingers {
		linger, err = time.ParseDuration(os.Getenv("PEER_LINGER"))
		must(err)
	}
	client, err := kgo.NewClient(
		kgo.SeedBrokers(os.Getenv("PEER_BOOTSTRAP_SERVERS")),
		kgo.RequiredAcks(kgo.AllISRAcks()), // idempotence is franz-go's default
		kgo.ProducerLinger(linger),
		kgo.ProducerBatchCompression(kgo.NoCompression()), // as the edge
		kgo.ProducerBatchMaxBytes(1<<20),
		kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil)), // murmur2, as the Java client
	)
	must(err)
	defer client.Close()
	receive := &receiver{
		client: client,
		topic:  os.Getenv("PEER_TOPIC"),
		tokens: map[string]string{os.Getenv("PEER_APP_TYPE"): os.Getenv("PEER_SYSTEM_TOKEN")},
		encode: confluentEncoder(schema, os.Getenv("PEER_SCHEMA_ID")),
		// It does not linger, and so answers soonest; what comes meanwhile goes out together all the same.
		produce: func(ctx context.Context, record *kgo.Record) error { return client.ProduceSync(ctx, record).FirstErr() },
	}
	if lingers {
		receive.produce = receive.linger
	}
	address := "127.0.0.1:" + os.Getenv("PEER_PORT")
	if os.Getenv("PEER_SERVER") == "fasthttp" {
		log.Fatal((&fasthttp.Server{Handler: receive.serveFast, MaxRequestBodySize: maxBodyBytes}).ListenAndServe(address))
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })
	mux.HandleFunc("POST /yida/tasks/complete", func(w http.ResponseWriter, r *http.Request) { receive.serve(w, r, "complete") })
	mux.HandleFunc("POST /yida/tasks/create", func(w http.ResponseWriter, r *http.Request) { receive.serve(w, r, "create") })
	log.Fatal(http.ListenAndServe(address, mux))
}

func (receive *receiver) serve(w http.ResponseWriter, r *http.Request, action string) {
	body := borrow()
	defer giveBack(body)
	if err := readAll(http.MaxBytesReader(w, r.Body, maxBodyBytes), r.ContentLength, body); err != nil {
		http.Error(w, "malformed", http.StatusBadRequest)
		return
	}
	status, told := receive.answer(r.Context(), action, r.Header.Get("Content-Type"), *body)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(told)
}

func (receive *receiver) serveFast(ctx *fasthttp.RequestCtx) {
	switch path := string(ctx.Path()); path {
	case "/yida/tasks/complete", "/yida/tasks/create":
		contentType := string(ctx.Request.Header.ContentType())
		status, told := receive.answer(ctx, path[len("/yida/tasks/"):], contentType, ctx.PostBody())
		ctx.SetContentType("application/json")
		ctx.SetStatusCode(status)
		ctx.SetBody(told)
	case "/healthz":
	default:
		ctx.SetStatusCode(http.StatusNotFound)
	}
}

// answer keeps nothing of the body.
func (receive *receiver) answer(ctx context.Context, action, contentType string, body []byte) (int, []byte) {
	receivedAt := time.Now().Truncate(time.Millisecond)
	parameters, err := readParameters(contentType, body)
	if err != nil {
		return http.StatusBadRequest, []byte(`{"error":"malformed"}`)
	}
	event, err := understand(action, parameters, receive.tokens, receivedAt)
	if errors.Is(err, errUnverified) {
		return http.StatusUnauthorized, []byte(`{"error":"unverified"}`)
	}
	if err != nil {
		return http.StatusBadRequest, []byte(`{"error":"malformed"}`)
	}
	value := borrow()
	defer giveBack(value)
	if *value, err = receive.encode(*value, event); err != nil {
		return http.StatusBadRequest, []byte(`{"error":"malformed"}`)
	}
	record := &kgo.Record{Topic: receive.topic, Key: []byte(event.InstanceID), Value: *value, Headers: headers(event)}
	if err := receive.produce(ctx, record); err != nil {
		return http.StatusServiceUnavailable, []byte(`{"error":"not durable"}`)
	}
	told, _ := json.Marshal(answer{true, event.EventID, "kafka"})
	return http.StatusOK, told
}

// linger waits for a record that may go out with later ones.
func (receive *receiver) linger(ctx context.Context, record *kgo.Record) error {
	delivered := make(chan error, 1)
	receive.client.Produce(ctx, record, func(_ *kgo.Record, err error) { delivered <- err })
	return <-delivered
}

func readAll(from io.Reader, length int64, into *[]byte) error {
	if length < 0 {
		found, err := io.ReadAll(from)
		*into = found
		return err
	}
	if length > maxBodyBytes {
		return errMalformed
	}
	*into = slices.Grow(*into, int(length))[:length]
	_, err := io.ReadFull(from, *into)
	return err
}

func readParameters(contentType string, body []byte) (map[string]string, error) {
	mediaType, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		return nil, err
	}
	parameters := map[string]string{}
	if mediaType == "application/json" {
		return parameters, json.Unmarshal(body, &parameters)
	}
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return nil, err
	}
	for key, values := range form {
		if len(values) > 1 {
			return nil, errMalformed
		}
		parameters[key] = values[0]
	}
	return parameters, nil
}

var (
	pooled  = os.Getenv("PEER_POOL") != ""
	buffers = sync.Pool{New: func() any { return fresh() }}
)

func fresh() *[]byte {
	each := make([]byte, 0, 2048)
	return &each
}

func borrow() *[]byte {
	if !pooled {
		return fresh()
	}
	return buffers.Get().(*[]byte)
}

func giveBack(each *[]byte) {
	if pooled {
		*each = (*each)[:0]
		buffers.Put(each)
	}
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
