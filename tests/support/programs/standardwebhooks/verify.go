// Verifies requests with the library of Standard Webhooks for Go: a JSON object {secret, headers, body} per line of FILE.
// For each, prints "verified" or the reason of the refusal. go run . FILE
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"os"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

func main() {
	file, err := os.Open(os.Args[1])
	if err != nil {
		panic(err)
	}
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		var request struct {
			Secret, Body string
			Headers      map[string]string
		}
		if err := json.Unmarshal(lines.Bytes(), &request); err != nil {
			panic(err)
		}
		headers := http.Header{}
		for name, value := range request.Headers {
			headers.Set(name, value)
		}
		webhook, err := standardwebhooks.NewWebhook(request.Secret)
		if err == nil {
			err = webhook.Verify([]byte(request.Body), headers)
		}
		if err != nil {
			fmt.Println(err)
		} else {
			fmt.Println("verified")
		}
	}
}
