// The Go peer of the edge: fasthttp and franz-go, doing the same work for a complete and a create.
package main

import (
	"context"
	"errors"
	"log"
	"mime"
	"net/http"
	"net/url"
	"os"
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
	client, err := kgo.NewClient(
		kgo.SeedBrokers(os.Getenv("PEER_BOOTSTRAP_SERVERS")),
		kgo.RequiredAcks(kgo.AllISRAcks()), // idempotence is franz-go's default
		kgo.ProducerLinger(2*time.Millisecond),
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
	}
	address := "127.0.0.1:" + os.Getenv("PEER_PORT")
	log.Fatal((&fasthttp.Server{Handler: receive.serve, MaxRequestBodySize: maxBodyBytes}).ListenAndServe(address))
}

func (receive *receiver) serve(ctx *fasthttp.RequestCtx) {
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
	value, err := receive.encode(make([]byte, 0, 2048), event)
	if err != nil {
		return http.StatusBadRequest, []byte(`{"error":"malformed"}`)
	}
	record := &kgo.Record{Topic: receive.topic, Key: []byte(event.InstanceID), Value: value, Headers: headers(event)}
	// ProduceSync does not linger, and so answers soonest; what comes meanwhile goes out together all the same.
	if err := receive.client.ProduceSync(ctx, record).FirstErr(); err != nil {
		return http.StatusServiceUnavailable, []byte(`{"error":"not durable"}`)
	}
	told, _ := json.Marshal(answer{true, event.EventID, "kafka"})
	return http.StatusOK, told
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

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
