// Readings on standard input, hours on standard output; both CSV.
package main

import (
	"fmt"
	"os"
)

func main() {
	if err := rollUp(os.Stdin, os.Stdout); err != nil {
		// The log of the function; the node tries the event again.
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
