package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/hamba/avro/v2"
	"github.com/twmb/franz-go/pkg/sr"
)

// A value that does not match its schema in the registry. Retries do not help.
var errUndecodable = errors.New("cannot be decoded")

// decoder reads the Confluent wire format: a zero byte, four bytes of schema id, Avro.
type decoder struct {
	registry *sr.Client
	schemas  map[int]avro.Schema
}

func newDecoder(registryURL string) (*decoder, error) {
	registry, err := sr.NewClient(sr.URLs(registryURL))
	return &decoder{registry, map[int]avro.Schema{}}, err
}

// decode returns errUndecodable, or the registry's error: then the record may be fine.
func (d *decoder) decode(ctx context.Context, value []byte) (told TaskNotification, err error) {
	id, body, err := new(sr.ConfluentHeader).DecodeID(value)
	if err != nil {
		return told, fmt.Errorf("%w: %w", errUndecodable, err)
	}
	schema, err := d.schema(ctx, id)
	if err != nil {
		return told, err
	}
	if err := avro.Unmarshal(schema, body, &told); err != nil {
		return told, fmt.Errorf("%w: %w", errUndecodable, err)
	}
	return told, nil
}

// schema is the one with that id, for reading into the type that this program was built with.
func (d *decoder) schema(ctx context.Context, id int) (avro.Schema, error) {
	if known, ok := d.schemas[id]; ok {
		return known, nil
	}
	found, err := d.registry.SchemaByID(ctx, id)
	var answer *sr.ResponseError
	if errors.As(err, &answer) && answer.StatusCode == http.StatusNotFound {
		return nil, fmt.Errorf("%w: %w", errUndecodable, err)
	}
	if err != nil {
		return nil, err
	}
	writer, err := avro.ParseWithCache(found.Schema, "", &avro.SchemaCache{})
	if err != nil {
		return nil, fmt.Errorf("%w: schema %d: %w", errUndecodable, id, err)
	}
	schema, err := avro.NewSchemaCompatibility().Resolve((&TaskNotification{}).Schema(), writer)
	if err != nil {
		return nil, fmt.Errorf("%w: schema %d: %w", errUndecodable, id, err)
	}
	d.schemas[id] = schema
	return schema, nil
}
