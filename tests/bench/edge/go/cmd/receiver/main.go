// The Go peer of the edge: net/http and franz-go, doing the same work for a complete and a create.
package main

import (
	"errors"
	"io"
	"log"
	"mime"
	"net/http"
	"net/url"
	"os"
	"time"

	"github.com/goccy/go-json"
	"github.com/twmb/avro"
	"github.com/twmb/franz-go/pkg/kgo"
)

const maxBodyBytes = 1 << 20

type receiver struct {
	client *kgo.Client
	topic  string
	tokens map[string]string
	encode func(*TaskEvent) ([]byte, error)
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
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })
	mux.HandleFunc("POST /yida/tasks/complete", func(w http.ResponseWriter, r *http.Request) { receive.answer(w, r, "complete") })
	mux.HandleFunc("POST /yida/tasks/create", func(w http.ResponseWriter, r *http.Request) { receive.answer(w, r, "create") })
	log.Fatal(http.ListenAndServe("127.0.0.1:"+os.Getenv("PEER_PORT"), mux))
}

func (receive *receiver) answer(w http.ResponseWriter, r *http.Request, action string) {
	receivedAt := time.Now().Truncate(time.Millisecond)
	parameters, err := readParameters(w, r)
	if err != nil {
		http.Error(w, "malformed", http.StatusBadRequest)
		return
	}
	event, err := understand(action, parameters, receive.tokens, receivedAt)
	if errors.Is(err, errUnverified) {
		http.Error(w, "unverified", http.StatusUnauthorized)
		return
	}
	if err != nil {
		http.Error(w, "malformed", http.StatusBadRequest)
		return
	}
	value, err := receive.encode(event)
	if err != nil {
		http.Error(w, "malformed", http.StatusBadRequest)
		return
	}
	record := &kgo.Record{Topic: receive.topic, Key: []byte(event.InstanceID), Value: value, Headers: headers(event)}
	// It does not linger, and so answers soonest; what comes meanwhile goes out together all the same.
	if err := receive.client.ProduceSync(r.Context(), record).FirstErr(); err != nil {
		http.Error(w, "not durable", http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	body, _ := json.Marshal(answer{true, event.EventID, "kafka"})
	_, _ = w.Write(body)
}

func readParameters(w http.ResponseWriter, r *http.Request) (map[string]string, error) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBodyBytes))
	if err != nil {
		return nil, err
	}
	mediaType, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
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
