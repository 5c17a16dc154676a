// Command empty is what the smallest embedder is measured against.
package main

import "fmt"

func main() { fmt.Println() }
