// Renders and lints charts by Helm's own packages: a set of values a line in, what came of it a line out.
package main

import (
	"encoding/json"
	"log"
	"log/slog"
	"os"

	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/common/util"
	"helm.sh/helm/v4/pkg/chart/v2/lint"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/engine"
)

type asked struct {
	Release string         `json:"release"`
	Values  map[string]any `json:"values"`
}

type answer struct {
	Files map[string]string `json:"files"`
	Error string            `json:"error"`
	Lint  []string          `json:"lint"`
}

func render(folder string, one asked) (map[string]string, error) {
	chart, err := loader.LoadDir(folder)
	if err != nil {
		return nil, err
	}
	options := common.ReleaseOptions{Name: one.Release, Namespace: "tasks", IsInstall: true, Revision: 1}
	values, err := util.ToRenderValues(chart, one.Values, options, common.DefaultCapabilities)
	if err != nil {
		return nil, err
	}
	return engine.Render(chart, values)
}

func main() {
	slog.SetLogLoggerLevel(slog.LevelWarn)
	folder := os.Args[1]
	in, out := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	for in.More() {
		var one asked
		if err := in.Decode(&one); err != nil {
			log.Fatal(err)
		}
		found := answer{Lint: []string{}}
		var err error
		if found.Files, err = render(folder, one); err != nil {
			found.Error = err.Error()
		}
		for _, each := range lint.RunAll(folder, one.Values, "tasks").Messages {
			found.Lint = append(found.Lint, each.Error())
		}
		if err := out.Encode(found); err != nil {
			log.Fatal(err)
		}
	}
}
