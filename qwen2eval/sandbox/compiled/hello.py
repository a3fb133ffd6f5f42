"""The first program of each language: it must pass before any of a model's is run. In the form of MultiPL-E's rows."""

HELLO: dict[str, tuple[str, str]] = {
    "cpp": (
        """\
#include<assert.h>
#include<bits/stdc++.h>
long twice(long x) {
  return 2 * x;
""",
        """\
}
int main() {
    auto candidate = twice;
    assert(candidate((2)) == (4));
}
""",
    ),
    "cs": (
        """\
using System;
using System.Diagnostics;
using System.Numerics;
class Problem {
    public static long Twice(long x) {
        return 2 * x;
""",
        """\
    }
    public static void Main(string[] args) {
    Debug.Assert(Twice((2L)) == (4L));
    }

}
""",
    ),
    "d": (
        """\
import std.math;
long twice(long x)
{
    return 2 * x;
}
""",
        """\
unittest
{
    alias candidate = twice;

    assert(candidate(2L) == 4L);
}
void main(){}""",
    ),
    "go": (
        """\
package twice_test

import (
    "testing"
    "fmt"
)

func twice(x int) int {
    return 2 * x
}
""",
        """\
func TestTwice(t *testing.T) {
  if fmt.Sprintf("%v", twice(2)) != "4" {
    t.Errorf("not twice")
  }
}
""",
    ),
    "java": (
        """\
import java.util.*;
import org.javatuples.*;
class Problem {
    public static long twice(long x) {
        return 2 * x;
""",
        """\
    }
    public static void main(String[] args) {
    assert(twice((2l)) == (4l));
    }

}
""",
    ),
    "jl": (
        """\
function twice(x::Int64)::Int64
    2 * x
end
""",
        """\
using Test

@testset begin

candidate = twice;
	@test(candidate(2) == 4)
end
""",
    ),
    "js": (
        """\
function twice(x){
  return 2 * x;
}
""",
        """\
const assert = require('node:assert');


function test() {
  let candidate = twice;
  assert.deepEqual(candidate(2),4);
}

test();""",
    ),
    "lua": (
        """\
local function twice(x)
  return 2 * x
end
""",
        """\
lu = require('luaunit')

function test_humaneval()
local candidate = twice
    lu.assertEquals(candidate(2), 4)
end

os.exit(lu.LuaUnit.run())""",
    ),
    "php": (
        """\
<?php
function twice($x) {
    return 2 * $x;
}
""",
        """\

function candidate(...$args) {
    return twice(...$args);
}

function test(): void {
    if (candidate(2) !== 4) { throw new Exception("Test failed!"); }
}

test();""",
    ),
    "pl": (
        """\
sub twice {
    my($x) = @_;
    return 2 * $x;
}
""",
        """\
use Test::Deep;


sub testhumaneval {
    my $candidate = \\&twice;
        if(eq_deeply($candidate->(2),4)) {
        print "ok!" }else{
        print "not ok!";
        exit 1;
        }
}

testhumaneval();""",
    ),
    "r": (
        """\
twice <- function(x) {
    return(2 * x)
}
""",
        """\
test_humaneval <- function() {
candidate <- twice
    if(!identical(candidate(2), 4)){quit('no', 1)}
}
test_humaneval()""",
    ),
    "rb": (
        """\
def twice(x)
  2 * x
end
""",
        """\
require 'test/unit'
class TestHumanEval < Test::Unit::TestCase
  def test_twice
    candidate = method(:twice)
    assert_equal(4, candidate.call(2))
  end
end
""",
    ),
    "rkt": (
        """\
#lang racket

(define (twice x)
  (* 2 x))
""",
        """\
(require rackunit)

(define (test-humaneval)

  (let (( candidate twice))
    (check-within (candidate 2) 4 0.001)
))

(test-humaneval)""",
    ),
    "rs": (
        """\
fn twice(x: isize) -> isize {
    2 * x
""",
        """\
}

fn main() {
    let candidate = twice;
    assert_eq!(candidate(2), 4);
}
""",
    ),
    "scala": (
        """\
import scala.math._
import scala.collection.mutable._
object Problem {
    def twice(x : Long) : Long = {
        2 * x
""",
        """\
    }
    def main(args: Array[String]) = {
    assert(twice((2l)) == (4l));
    }

}
""",
    ),
    "sh": (
        """\
#!/bin/bash
twice() {
  echo $(($1 * 2))
""",
        """\
}

candidate() {
    twice "$@"
}

set -e
run_test() {
    [[ $(candidate "2") = "4" ]]
}

run_test
""",
    ),
    "swift": (
        """\
func twice(x: Int) -> Int {
    return 2 * x
""",
        """\
}

assert(twice(x: 2) == 4)
""",
    ),
    "ts": (
        """\
function twice(x: number): number {
  return 2 * x;
}
""",
        """\
declare var require: any;
const assert = require('node:assert');


function test() {
  let candidate = twice;
  assert.deepEqual(candidate(2),4);
}

test();""",
    ),
}
"""Program and tests, by language; the tests close what the program leaves open."""
