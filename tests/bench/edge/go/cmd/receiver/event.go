package main

import (
	"bytes"
	"crypto/hmac"
	"crypto/md5"
	"crypto/sha1"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/goccy/go-json"
	"github.com/twmb/avro"
	"github.com/twmb/franz-go/pkg/kgo"
)

var (
	errMalformed  = errors.New("malformed")
	errUnverified = errors.New("unverified")
	// uuid5(NAMESPACE_URL, "urn:taskbridge:v1")
	namespace = uuid5([]byte("\x6b\xa7\xb8\x11\x9d\xad\x11\xd1\x80\xb4\x00\xc0\x4f\xd4\x30\xc8"), []byte("urn:taskbridge:v1"))
	actions   = map[string]string{"create": "CREATED", "complete": "COMPLETED"}
)

type Person struct {
	UserID string  `avro:"user_id"`
	Name   *string `avro:"name"`
}

type TaskEvent struct {
	EventID        string             `avro:"event_id"`
	Source         string             `avro:"source"`
	Action         string             `avro:"action"`
	CorpID         string             `avro:"corp_id"`
	AppType        string             `avro:"app_type"`
	InstanceID     string             `avro:"instance_id"`
	TaskID         *string            `avro:"task_id"`
	ActorID        *string            `avro:"actor_id"`
	RecipientIDs   []string           `avro:"recipient_ids"`
	Originator     *Person            `avro:"originator"`
	Title          *string            `avro:"title"`
	URL            *string            `avro:"url"`
	ProcessCode    *string            `avro:"process_code"`
	ProcessName    *string            `avro:"process_name"`
	FormUUID       *string            `avro:"form_uuid"`
	SerialNo       *string            `avro:"serial_no"`
	InstanceStatus *string            `avro:"instance_status"`
	ApprovedResult *string            `avro:"approved_result"`
	CreatedAt      *time.Time         `avro:"created_at"`
	FinishedAt     *time.Time         `avro:"finished_at"`
	OccurredAt     time.Time          `avro:"occurred_at"`
	ReceivedAt     time.Time          `avro:"received_at"`
	Outcome        *string            `avro:"outcome"`
	Remark         *string            `avro:"remark"`
	StepName       *string            `avro:"step_name"`
	StepID         *string            `avro:"step_id"`
	DecidedBy      *string            `avro:"decided_by"`
	DueAt          *time.Time         `avro:"due_at"`
	RecoveredBy    *string            `avro:"recovered_by"`
	FormData       map[string]*string `avro:"form_data"`
	RawParameters  map[string]string  `avro:"raw_parameters"`
}

// described is what the `task` of a create holds, as far as an event takes it.
type described struct {
	ActionerID            json.RawMessage            `json:"actionerId"`
	AppType               string                     `json:"appType"`
	CorpID                string                     `json:"corpId"`
	OriginatorCorpID      string                     `json:"originatorCorpId"`
	CreateTime            json.Number                `json:"createTime"`
	FinishTime            json.Number                `json:"finishTime"`
	DataMap               map[string]json.RawMessage `json:"dataMap"`
	FormInstanceID        string                     `json:"formInstanceId"`
	FormUUID              string                     `json:"formUuid"`
	OriginatorID          string                     `json:"originatorId"`
	OriginatorDisplayName string                     `json:"originatorDisplayName"`
	ProcessApprovedResult string                     `json:"processApprovedResult"`
	ProcessCode           string                     `json:"processCode"`
	ProcessInstanceStatus string                     `json:"processInstanceStatus"`
	ProcessName           string                     `json:"processName"`
	SerialNo              string                     `json:"serialNo"`
	TaskID                string                     `json:"taskId"`
	Title                 string                     `json:"title"`
	URL                   string                     `json:"url"`
}

func understand(action string, parameters, tokens map[string]string, receivedAt time.Time) (*TaskEvent, error) {
	event := &TaskEvent{
		Source: "yida", Action: actions[action], ReceivedAt: receivedAt,
		RecipientIDs: []string{}, FormData: map[string]*string{}, RawParameters: parameters,
	}
	var task described
	if action == "create" {
		if err := json.Unmarshal([]byte(parameters["task"]), &task); err != nil {
			return nil, errMalformed
		}
		event.AppType = task.AppType
	} else {
		event.AppType = parameters["appType"]
	}
	if event.AppType == "" {
		return nil, errMalformed
	}
	token, known := tokens[event.AppType]
	if !known || !verified(parameters, token) {
		return nil, errUnverified
	}
	event.EventID = eventID(action, parameters)
	event.OccurredAt = receivedAt
	if at := moment(parameters["dateTime"]); at != nil {
		event.OccurredAt = *at
	}
	if action == "create" {
		if err := task.fill(event); err != nil {
			return nil, err
		}
	} else {
		event.CorpID, event.InstanceID = parameters["corpId"], parameters["formInstId"]
		event.TaskID, event.ActorID = text(parameters["taskId"]), text(parameters["actualWorkId"])
		if event.TaskID == nil {
			return nil, errMalformed
		}
	}
	if !isID(event.CorpID) || !isID(event.InstanceID) {
		return nil, errMalformed
	}
	return event, nil
}

func (task *described) fill(event *TaskEvent) error {
	event.CorpID, event.InstanceID = task.CorpID, task.FormInstanceID
	if event.CorpID == "" {
		event.CorpID = task.OriginatorCorpID
	}
	event.TaskID = text(task.TaskID)
	if len(task.ActionerID) > 0 && task.ActionerID[0] == '[' {
		if err := json.Unmarshal(task.ActionerID, &event.RecipientIDs); err != nil {
			return errMalformed
		}
	} else if one := jsonText(task.ActionerID); one != nil {
		event.RecipientIDs = strings.Split(*one, ",")
	}
	if task.OriginatorID != "" {
		event.Originator = &Person{task.OriginatorID, text(task.OriginatorDisplayName)}
	}
	event.Title, event.ProcessCode, event.ProcessName = text(task.Title), text(task.ProcessCode), text(task.ProcessName)
	event.FormUUID, event.SerialNo = text(task.FormUUID), text(task.SerialNo)
	event.InstanceStatus, event.ApprovedResult = text(task.ProcessInstanceStatus), text(task.ProcessApprovedResult)
	event.CreatedAt, event.FinishedAt = moment(task.CreateTime.String()), moment(task.FinishTime.String())
	if address, err := url.Parse(task.URL); err == nil && (address.Scheme == "https" || address.Scheme == "http") && address.Host != "" {
		event.URL = text(task.URL)
	}
	for key, value := range task.DataMap {
		event.FormData[key] = jsonText(value)
	}
	return nil
}

func verified(parameters map[string]string, token string) bool {
	keys := make([]string, 0, len(parameters))
	for key := range parameters {
		if key != "sign" {
			keys = append(keys, key)
		}
	}
	slices.SortFunc(keys, compareFolded)
	signed := make([]byte, 0, 2048)
	for _, key := range keys {
		signed = append(signed, parameters[key]...)
	}
	signed = append(signed, token...)
	digest := md5.Sum(signed)
	return hmac.Equal([]byte(hex.EncodeToString(digest[:])), []byte(strings.ToLower(parameters["sign"])))
}

// compareFolded orders names without regard to case, and copies nothing; the names of these callbacks are ASCII.
func compareFolded(a, b string) int {
	for i := range min(len(a), len(b)) {
		if x, y := lower(a[i]), lower(b[i]); x != y {
			return int(x) - int(y)
		}
	}
	return len(a) - len(b)
}

func lower(each byte) byte {
	if 'A' <= each && each <= 'Z' {
		each += 'a' - 'A'
	}
	return each
}

func eventID(action string, parameters map[string]string) string {
	keys := make([]string, 0, len(parameters))
	for key := range parameters {
		if key != "sign" {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	name := make([]byte, 0, 2048)
	part := func(each string) {
		name = strconv.AppendInt(name, int64(utf8.RuneCountInString(each)), 10)
		name = append(append(name, ':'), each...)
	}
	part("yida")
	part(action)
	for _, key := range keys {
		part(key)
		part(parameters[key])
	}
	id := uuid5(namespace, name)
	digits := hex.EncodeToString(id)
	return digits[:8] + "-" + digits[8:12] + "-" + digits[12:16] + "-" + digits[16:20] + "-" + digits[20:]
}

func uuid5(space, name []byte) []byte {
	hash := sha1.New()
	hash.Write(space)
	hash.Write(name)
	id := hash.Sum(nil)[:16]
	id[6] = id[6]&0x0f | 0x50
	id[8] = id[8]&0x3f | 0x80
	return id
}

func headers(event *TaskEvent) []kgo.RecordHeader {
	source := "/" + event.Source + "/" + url.PathEscape(event.CorpID) + "/" + url.PathEscape(event.AppType)
	return []kgo.RecordHeader{
		{Key: "ce_specversion", Value: []byte("1.0")},
		{Key: "ce_id", Value: []byte(event.EventID)},
		{Key: "ce_type", Value: []byte("taskbridge.task." + strings.ToLower(event.Action) + ".v1")},
		{Key: "ce_source", Value: []byte(source)},
		{Key: "ce_subject", Value: []byte(event.InstanceID)},
		{Key: "ce_time", Value: []byte(event.OccurredAt.UTC().Format("2006-01-02T15:04:05.000Z"))},
		{Key: "content-type", Value: []byte("application/avro")},
	}
}

// confluentEncoder appends a zero byte, the schema's id and the Avro body.
func confluentEncoder(schema *avro.Schema, schemaID string) func([]byte, *TaskEvent) ([]byte, error) {
	id, err := strconv.ParseUint(schemaID, 10, 32)
	must(err)
	prefix := binary.BigEndian.AppendUint32([]byte{0}, uint32(id))
	return func(to []byte, event *TaskEvent) ([]byte, error) {
		return schema.AppendEncode(append(to, prefix...), event)
	}
}

func text(value string) *string {
	if strings.TrimSpace(value) == "" {
		return nil
	}
	return &value
}

// jsonText is a string's text, and any other value's JSON; nil for null.
func jsonText(value json.RawMessage) *string {
	if len(value) == 0 || string(value) == "null" {
		return nil
	}
	found := string(value)
	if value[0] == '"' {
		if bytes.IndexByte(value, '\\') < 0 {
			found = found[1 : len(found)-1]
		} else if json.Unmarshal(value, &found) != nil {
			found = string(value)
		}
	}
	return &found
}

func moment(value string) *time.Time {
	ms, err := strconv.ParseInt(value, 10, 64)
	if err != nil || len(value) != 13 {
		return nil
	}
	at := time.UnixMilli(ms)
	return &at
}

func isID(value string) bool {
	return value != "" && utf8.RuneCountInString(value) <= 128 &&
		!strings.ContainsFunc(value, func(each rune) bool { return each < 0x20 || each >= 0x7f && each < 0xa0 })
}
