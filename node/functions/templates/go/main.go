// The function {{name}}: data on standard input, attributes in the variables CE_…, the reply on standard output.
// An HTTP request comes the same way, with its method in HTTP_METHOD and its body as the data.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
)

type reading struct {
	Value *float64 `json:"value"`
}

func main() {
	if os.Getenv("HTTP_METHOD") == "GET" {
		fmt.Println("hello from {{name}}")
		return
	}
	data, err := io.ReadAll(os.Stdin)
	if err == nil {
		var reply []byte
		if reply, err = convert(data); err == nil {
			_, err = os.Stdout.Write(reply)
		}
	}
	if err != nil {
		// Standard error is the function's log; a failure makes the node try the event again.
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// convert turns a reading in °C into one in °F.
func convert(data []byte) ([]byte, error) {
	var celsius reading
	if err := json.Unmarshal(data, &celsius); err != nil {
		return nil, fmt.Errorf("not a reading: %w", err)
	}
	if celsius.Value == nil {
		return nil, fmt.Errorf("a reading without a value: %s", data)
	}
	fahrenheit := *celsius.Value*1.8 + 32
	return json.Marshal(reading{&fahrenheit})
}
