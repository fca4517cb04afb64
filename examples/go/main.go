// Writes everybody's four lists to a SQLite file, each change once: a subscriber to copy and change.
//
//	subscriber BOOTSTRAP_SERVERS REGISTRY_URL FILE
//
// Start it twice with the same file: the two share the work. Ctrl-C and SIGTERM end it.
package main

import (
	"context"
	"errors"
	"log"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/twmb/franz-go/pkg/kgo"
)

// In your own project: your file with the schema.
//go:generate go run github.com/hamba/avro/v2/cmd/avrogen -encoders -fullschema -enums -pkg main -o notification.go ../../schemas/src/taskbridge/schemas/avro/TaskNotification.avsc

func main() {
	if len(os.Args) != 4 {
		log.Fatal("usage: subscriber BOOTSTRAP_SERVERS REGISTRY_URL FILE")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1], os.Args[2], os.Args[3]); err != nil && ctx.Err() == nil {
		log.Fatal(err) // its supervisor restarts it
	}
}

func run(ctx context.Context, servers, registryURL, path string) error {
	decoder, err := newDecoder(registryURL)
	if err != nil {
		return err
	}
	lists, err := openLists(path)
	if err != nil {
		return err
	}
	defer lists.Close()
	client, err := kgo.NewClient(
		kgo.SeedBrokers(strings.Split(servers, ",")...),
		kgo.ConsumerGroup("example-go"),
		kgo.ConsumeTopics("taskbridge.task-notifications.v1"),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.DisableAutoCommit(),
		kgo.BlockRebalanceOnPoll(), // nobody is given a partition before what was read of it is done
	)
	if err != nil {
		return err
	}
	defer client.CloseAllowingRebalance()
	for {
		fetches := client.PollRecords(ctx, 500)
		if ctx.Err() != nil {
			return nil
		}
		fetches.EachError(func(topic string, partition int32, err error) {
			log.Printf("%s/%d: %v", topic, partition, err)
		})
		var told []TaskNotification
		for _, record := range fetches.Records() {
			each, err := decoder.decode(ctx, record.Value)
			if errors.Is(err, errUndecodable) {
				log.Printf("passed over: %s/%d@%d: %v", record.Topic, record.Partition, record.Offset, err)
				continue
			}
			if err != nil {
				return err
			}
			told = append(told, each)
		}
		if err := lists.apply(ctx, told); err != nil {
			return err
		}
		// An uncommitted record is committed with the next ones, or comes again and changes nothing.
		if err := client.CommitUncommittedOffsets(ctx); err != nil {
			log.Printf("not committed yet: %v", err)
		}
		client.AllowRebalance()
	}
}
